package ebs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/blockvol/blockvol/cloud"
)

// ref names what a call was about, for the user.
type ref struct {
	name, id  string
	zone, key string // told where the cause may lie in them
}

func (r ref) String() string {
	switch {
	case r.name != "" && r.id != "":
		return fmt.Sprintf("volume %q (%s)", r.name, r.id)
	case r.name != "":
		return fmt.Sprintf("volume %q", r.name)
	case r.id != "":
		return "volume " + r.id
	}
	return ""
}

func notFound(r ref) error {
	return cloud.Errorf(cloud.ErrNotFound, "%s does not exist in this cluster", r)
}

// explain turns the failure of an action into the error the user reads. What was explained before stays as it is.
func (c *Client) explain(action string, r ref, err error) error {
	if err == nil {
		return nil
	}
	var told *cloud.Error
	var holder *cloud.HolderError
	var ambiguous *cloud.AmbiguousError
	var tooSoon *cloud.TooSoonError
	if errors.As(err, &told) || errors.As(err, &holder) || errors.As(err, &ambiguous) || errors.As(err, &tooSoon) {
		return err
	}
	what := action
	if text := r.String(); text != "" {
		what += " " + text
	}
	m, detail := c.interpret(r, err)
	text := fmt.Sprintf("cannot %s: %s; %s", what, m.cause, m.advice)
	if detail != "" {
		text += " (" + detail + ")"
	}
	return &cloud.Error{Kind: m.kind, Text: c.secrets.redact(text), Cause: err}
}

// interpret finds the meaning of a failure, and what EC2 said word for word.
func (c *Client) interpret(r ref, err error) (m meaning, detail string) {
	var noCredentials *credentialsError
	var answer smithy.APIError
	var response *awshttp.ResponseError
	status, request := 0, ""
	var f *failure
	if errors.As(err, &f) && f.last != nil && !errors.As(f.err, &answer) {
		err = f.last // the last attempt was cut off by the end of the context; the one before it had an answer
	}
	if errors.As(err, &response) {
		status, request = response.HTTPStatusCode(), response.ServiceRequestID()
	}
	switch {
	case errors.As(err, &noCredentials):
		return meaning{kind: cloud.ErrCredentials, cause: "no AWS credentials were found",
				advice: "give the instance a role with the policy of docs/iam-policy.json (and IMDSv2 a hop limit that reaches this process), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"},
			lastLine(noCredentials.err)
	case errors.As(err, &answer):
		m, detail := c.interpretAnswer(r, answer, status, request)
		if f != nil && separately[f.action] {
			m.advice = strings.Replace(m.advice, "docs/iam-policy.json", "docs/iam-snapshots.json", 1)
		}
		return m, detail
	case status != 0:
		return meaning{kind: cloud.ErrUnavailable, cause: fmt.Sprintf("the endpoint gave HTTP status %d and no answer that EC2 would give", status),
			advice: "check AWS_ENDPOINT_URL and any proxy (HTTPS_PROXY)"}, ""
	}
	cause := "EC2 cannot be reached"
	var lookup *net.DNSError
	var called *url.Error
	switch {
	case errors.As(err, &lookup):
		cause += fmt.Sprintf(": the name %s cannot be resolved", lookup.Name)
	case errors.As(err, &called):
		cause += fmt.Sprintf(": %v", called.Err)
	case errors.Is(err, context.Canceled):
		cause = "the request was given up before EC2 answered"
	case errors.Is(err, context.DeadlineExceeded):
		cause = "EC2 did not answer in time"
	}
	return meaning{kind: cloud.ErrUnavailable, cause: cause,
		advice: "check AWS_REGION, AWS_ENDPOINT_URL, the route or VPC endpoint to EC2 and any proxy (HTTPS_PROXY), and try again"}, ""
}

func (c *Client) interpretAnswer(r ref, answer smithy.APIError, status int, request string) (meaning, string) {
	code := answer.ErrorCode()
	m, known := codes[code]
	switch {
	case known:
	case strings.Contains(strings.ToLower(code), "kms"):
		m = codes["KMSKeyNotAccessibleFault"]
	case status >= 500:
		m = codes["Unavailable"]
	case status == 401 || status == 403:
		m = codes["AccessDenied"]
	default:
		m = meaning{kind: cloud.ErrInvalid, cause: "EC2 refused the request", advice: "see EC2's message"}
	}
	if m.kind == cloud.ErrKMS && r.key != "" {
		m.cause += " (" + r.key + ")"
	}
	if (m.kind == cloud.ErrZone || code == "InvalidZone.NotFound" || m.kind == cloud.ErrCapacity) && r.zone != "" {
		m.cause += " (" + r.zone + ")"
	}
	message, encoded := splitMessage(c.secrets.redact(answer.ErrorMessage()))
	if encoded != "" {
		c.log.WithField("code", code).WithField("encoded", encoded).Warn("EC2 refused a request; aws sts decode-authorization-message --encoded-message tells the rule")
	}
	detail := "EC2: " + code
	if message != "" {
		detail = "EC2: " + message + "; " + code
	}
	if request != "" {
		detail += ", request " + request
	}
	return m, detail
}

var encodedMessage = regexp.MustCompile(`\s*Encoded authorization failure message:\s*([A-Za-z0-9_-]+)`)

// splitMessage separates the readable part of EC2's message, made short, from the encoded one.
func splitMessage(message string) (readable, encoded string) {
	if found := encodedMessage.FindStringSubmatch(message); found != nil {
		encoded = found[1]
		message = strings.Replace(message, found[0], "", 1)
	}
	message = strings.Join(strings.Fields(message), " ")
	if runes := []rune(message); len(runes) > 400 {
		message = string(runes[:400]) + "..."
	}
	return strings.TrimRight(message, ". "), encoded
}

// temporary reports whether the same question may get an answer a moment later.
func temporary(err error) bool {
	var noCredentials *credentialsError
	var told *cloud.Error
	var answer smithy.APIError
	switch {
	case errors.As(err, &noCredentials):
		return false
	case errors.As(err, &told):
		return told.Kind == cloud.ErrThrottled || told.Kind == cloud.ErrUnavailable
	case errors.As(err, &answer):
		m, known := codes[answer.ErrorCode()]
		if known {
			return m.kind == cloud.ErrThrottled || m.kind == cloud.ErrUnavailable
		}
		var response *awshttp.ResponseError
		return errors.As(err, &response) && response.HTTPStatusCode() >= 500
	}
	return true
}
