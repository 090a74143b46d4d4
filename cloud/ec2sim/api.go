package ec2sim

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const (
	apiVersion = "2016-11-15"
	maxBody    = 1 << 20
	xmlSpace   = "http://ec2.amazonaws.com/doc/2016-11-15/"
)

// call is one request on its way.
type call struct {
	action    string
	params    params
	dryRun    bool
	pageSize  int // results per page at most; 0: no limit
	faults    []Fault
	requestID string
	log       Call
}

// Handler serves the EC2 query API at / and the simulator's control at /_sim/ (see control.go).
func (s *Sim) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.serveAPI)
	s.addControl(mux)
	return mux
}

func (s *Sim) serveAPI(w http.ResponseWriter, r *http.Request) {
	started := s.now()
	c := &call{requestID: newRequestID()}
	c.log = Call{Time: started, RequestID: c.requestID, UserAgent: r.UserAgent()}
	w.Header().Set("x-amzn-RequestId", c.requestID)
	w.Header().Set("Server", "AmazonEC2")
	answer, cut, err := s.handle(w, r, c)
	status, body := http.StatusOK, answer
	if err != nil {
		var api *apiError
		if !errors.As(err, &api) {
			s.log.WithError(err).WithField("action", c.action).Error("ec2sim: a call failed for a reason of the simulator's own")
			api = errorf(500, "InternalError", "An internal error has occurred: %s", err)
		}
		status, body = api.Status, errorBody(api, c.requestID)
		c.log.Code = api.Code
	}
	c.log.Status = status
	if cut {
		c.log.Status = 0
	}
	c.log.DurationMS = s.now().Sub(started).Milliseconds()
	s.record(c.log)
	if cut {
		panic(http.ErrAbortHandler) // Cuts the connection without an answer.
	}
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	w.WriteHeader(status)
	w.Write(body) // An error means that the client has gone.
}

// handle carries out one request. cut means: the connection ends without an answer.
func (s *Sim) handle(w http.ResponseWriter, r *http.Request, c *call) (body []byte, cut bool, err error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	raw, err := readForm(r)
	if err != nil {
		return nil, false, errorf(400, "MalformedQueryString", "The query string contains a syntax error: %s", err)
	}
	c.params = flatten(r.Form)
	c.action = c.params["Action"]
	c.log.Action, c.log.Params = c.action, logged(c.params)
	if err := s.authenticate(r, raw, c); err != nil {
		return nil, false, err
	}
	act, ok := actions[c.action]
	switch {
	case c.action == "":
		return nil, false, errorf(400, "MissingAction", "The request must contain the parameter Action")
	case !ok:
		return nil, false, errorf(400, "InvalidAction", "The action %s is not valid for this web service.", c.action)
	case c.params["Version"] == "":
		return nil, false, errorf(400, "MissingParameter", "The request must contain the parameter Version")
	case c.params["Version"] != apiVersion:
		return nil, false, errorf(400, "InvalidParameterValue", "The simulator knows API version %s only, not %s", apiVersion, c.params["Version"])
	}
	latency := s.Delays().Call
	wait(r.Context(), latency/2) // A client that leaves in the meantime does not stop a call that has arrived.
	if err := s.admit(c, act); err != nil {
		return nil, false, err
	}
	for _, f := range c.faults {
		stop, err := f.before(s, r.Context())
		if stop || err != nil {
			return nil, stop, err
		}
	}
	body, err = s.execute(c, act)
	wait(r.Context(), latency-latency/2)
	for _, f := range c.faults {
		cut = cut || f.Kind == "lost-answer"
	}
	return body, cut, err
}

// admit applies throttling and permissions, and takes the faults that are meant for the call.
func (s *Sim) admit(c *call, act action) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errShutDown()
	}
	if !s.allow(c.action, act.bucket) {
		return errorf(503, "RequestLimitExceeded", "Request limit exceeded.")
	}
	for _, denied := range s.state.Limits.DeniedActions {
		if denied == c.action {
			return errorf(403, "UnauthorizedOperation", "You are not authorized to perform this operation. User: arn:aws:sts::%s:assumed-role/simulated is not authorized to perform: "+
				"ec2:%s because no identity-based policy allows the action. Encoded authorization failure message: %s", s.cfg.Account, c.action, randomHex(120))
		}
	}
	c.faults = s.takeFaults(c)
	c.pageSize = s.state.Limits.PageSize
	for _, f := range c.faults {
		if f.Kind == "page-size" {
			c.pageSize = f.Count
		}
	}
	return nil
}

// execute runs the action under the lock and saves what it has changed before anybody hears of it.
func (s *Sim) execute(c *call, act action) ([]byte, error) {
	if err := c.params.known(act.params); err != nil {
		return nil, err
	}
	dry, err := c.params.boolean("DryRun")
	if err != nil {
		return nil, err
	}
	c.dryRun = dry
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed { // The state on disk may be another simulator's by now.
		return nil, errShutDown()
	}
	answer, err := act.do(s, c)
	if s.closed { // While it copied data.
		return nil, errShutDown()
	}
	s.save()
	if err != nil {
		return nil, err
	}
	if dry {
		return nil, errDryRun()
	}
	return encode(c, answer)
}

// encode writes an answer: <ActionResponse><requestId/>, then the fields of the action's struct.
func encode(c *call, answer any) ([]byte, error) {
	var inner bytes.Buffer
	if err := xml.NewEncoder(&inner).EncodeElement(answer, xml.StartElement{Name: xml.Name{Local: "x"}}); err != nil {
		return nil, err
	}
	fields := bytes.TrimSuffix(bytes.TrimPrefix(inner.Bytes(), []byte("<x>")), []byte("</x>"))
	return fmt.Appendf(nil, "%s<%sResponse xmlns=%q><requestId>%s</requestId>%s</%[2]sResponse>", xml.Header, c.action, xmlSpace, c.requestID, fields), nil
}

func errorBody(err *apiError, requestID string) []byte {
	type one struct {
		Code    string
		Message string
	}
	body, _ := xml.Marshal(struct { // Plain strings always encode.
		XMLName   xml.Name `xml:"Response"`
		Errors    []one    `xml:"Errors>Error"`
		RequestID string
	}{Errors: []one{{err.Code, err.Message}}, RequestID: requestID})
	return append([]byte(xml.Header), body...)
}

// wait passes time, unless the context ends; it tells whether the time has passed.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
