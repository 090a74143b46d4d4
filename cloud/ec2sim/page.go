package ec2sim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"math/rand/v2"
	"sort"
)

// Limits of MaxResults.
const (
	minPage = 5
	maxPage = 1000
)

// page cuts one page out of the sorted results of a Describe. Pages are cut by ID, so that what is made or deleted between two
// pages neither repeats nor hides anything else; within a page the order is random [EC2 defines none].
func page[T any](s *Sim, c *call, all []T, id func(T) string, ids []string) (out []T, next string, err error) {
	size, sent, err := c.params.integer("MaxResults")
	if err != nil {
		return nil, "", err
	}
	if sent && len(ids) > 0 {
		return nil, "", errorf(400, "InvalidParameterCombination", "The parameter maxResults cannot be used with the parameter that lists IDs in the same request")
	}
	if sent && (size < minPage || size > maxPage) {
		return nil, "", errorf(400, "InvalidParameterValue", "Value ( %d ) for parameter maxResults is invalid. Expecting a value between %d and %d.", size, minPage, maxPage)
	}
	if !sent {
		size = int64(len(all)) + 1
	}
	if limit := int64(c.pageSize); limit > 0 && len(ids) == 0 && limit < size {
		size = limit
	}
	sort.Slice(all, func(i, j int) bool { return id(all[i]) < id(all[j]) })
	start := 0
	if token := c.params["NextToken"]; token != "" {
		after, ok := s.openToken(c.action, token)
		if !ok {
			return nil, "", errorf(400, "InvalidPaginationToken", "The specified pagination token is not valid or is expired.")
		}
		start = sort.Search(len(all), func(i int) bool { return id(all[i]) > after })
	}
	out = append(out, all[start:]...)
	if int64(len(out)) > size {
		out = out[:size]
		next = s.sealToken(c.action, id(out[size-1]))
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out, next, nil
}

// sealToken makes an opaque token out of the last ID of a page. It is valid for one action only, and survives a restart.
func (s *Sim) sealToken(action, after string) string {
	return base64.RawURLEncoding.EncodeToString(append(s.tokenSum(action, after), after...))
}

func (s *Sim) openToken(action, token string) (after string, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) < sha256.Size {
		return "", false
	}
	after = string(raw[sha256.Size:])
	return after, hmac.Equal(raw[:sha256.Size], s.tokenSum(action, after))
}

func (s *Sim) tokenSum(action, after string) []byte {
	sum := hmac.New(sha256.New, []byte(s.state.Secret))
	sum.Write([]byte(action + "\x00" + after))
	return sum.Sum(nil)
}
