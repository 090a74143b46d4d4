package ec2sim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strings"
)

// readForm reads the parameters of a request from its query and its body into r.Form, and returns the body as it was sent.
func readForm(r *http.Request) ([]byte, error) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	body, err := url.ParseQuery(string(raw))
	if err != nil {
		return nil, err
	}
	for name, values := range body {
		form[name] = append(values, form[name]...)
	}
	r.Form = form
	return raw, nil
}

// signature is what an Authorization header of AWS Signature Version 4 says.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
type signature struct {
	key, date, region, service string
	signed                     []string // names of headers
	sum                        string
}

func parseSignature(header string) (signature, bool) {
	rest, ok := strings.CutPrefix(header, "AWS4-HMAC-SHA256 ")
	if !ok {
		return signature{}, false
	}
	var sig signature
	for _, part := range strings.Split(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "Credential":
			scope := strings.Split(value, "/")
			if len(scope) != 5 || scope[4] != "aws4_request" {
				return signature{}, false
			}
			sig.key, sig.date, sig.region, sig.service = scope[0], scope[1], scope[2], scope[3]
		case "SignedHeaders":
			sig.signed = strings.Split(value, ";")
		case "Signature":
			sig.sum = value
		}
	}
	return sig, sig.key != "" && sig.sum != "" && len(sig.signed) > 0
}

// authenticate checks who calls. Any access key is good unless Limits.AccessKeys names some; then the signature is checked too.
func (s *Sim) authenticate(r *http.Request, body []byte, c *call) error {
	header := r.Header.Get("Authorization")
	if header == "" {
		return errorf(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
	}
	sig, ok := parseSignature(header)
	if !ok {
		return errorf(400, "IncompleteSignature", "The Authorization header is not a complete AWS Signature Version 4.")
	}
	c.log.AccessKey = sig.key
	s.mu.Lock()
	defer s.mu.Unlock()
	c.log.Instance = s.keys[sig.key]
	failure := errorf(401, "AuthFailure", "AWS was not able to validate the provided access credentials")
	if slices.Contains(s.state.Limits.DeniedKeys, sig.key) {
		return failure
	}
	if sig.region != s.cfg.Region || sig.service != "ec2" {
		return errorf(401, "AuthFailure", "Credential should be scoped to region '%s' and service 'ec2', not '%s' and '%s'.", s.cfg.Region, sig.region, sig.service)
	}
	keys := s.state.Limits.AccessKeys
	if len(keys) == 0 || c.log.Instance != "" {
		return nil
	}
	secret, known := keys[sig.key]
	if !known || !hmac.Equal([]byte(sig.sum), []byte(sig.compute(r, body, secret))) {
		return failure
	}
	return nil
}

// compute makes the signature that the request ought to have.
func (g signature) compute(r *http.Request, body []byte, secret string) string {
	var canonical strings.Builder
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	canonical.WriteString(r.Method + "\n" + path + "\n" + canonicalQuery(r.URL.RawQuery) + "\n")
	for _, name := range g.signed {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = r.Header.Get("Content-Length")
			if value == "" {
				value = itoa(int64(len(body)))
			}
		}
		canonical.WriteString(name + ":" + strings.Join(strings.Fields(value), " ") + "\n")
	}
	hash := sha256.Sum256(body)
	canonical.WriteString("\n" + strings.Join(g.signed, ";") + "\n" + hex.EncodeToString(hash[:]))
	scope := g.date + "/" + g.region + "/" + g.service + "/aws4_request"
	request := sha256.Sum256([]byte(canonical.String()))
	text := "AWS4-HMAC-SHA256\n" + r.Header.Get("X-Amz-Date") + "\n" + scope + "\n" + hex.EncodeToString(request[:])
	key := []byte("AWS4" + secret)
	for _, part := range []string{g.date, g.region, g.service, "aws4_request"} {
		key = sign(key, part)
	}
	return hex.EncodeToString(sign(key, text))
}

func sign(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

func canonicalQuery(raw string) string {
	parts := strings.Split(raw, "&")
	sort.Strings(parts)
	return strings.Join(parts, "&")
}
