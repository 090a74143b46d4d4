package ebs

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go/middleware"
	"github.com/sirupsen/logrus"

	"github.com/blockvol/blockvol/cloud"
)

// HTTPClient sends requests: an *http.Client, an *awshttp.BuildableClient, or anything else with this method.
type HTTPClient interface {
	Do(*http.Request) (*http.Response, error)
}

// Config is what a Client is made of. Only Cluster is required.
type Config struct {
	// Cluster is the name all hosts share that share volumes. It is part of every tag filter, so it must not be empty.
	Cluster string

	// Region, InstanceID and Zone are for hosts without instance metadata. What is empty comes from the SDK's own settings (region) or
	// from IMDSv2. With InstanceID and Zone set the metadata service is never asked for them.
	Region, InstanceID, Zone string

	// HTTPClient carries the requests to EC2 and to the metadata service; nil is the SDK's own. Where AWS_CA_BUNDLE may be set it must be an
	// *awshttp.BuildableClient, with Credentials: the SDK gives the certificates to no other client, and fails.
	HTTPClient HTTPClient
	// Endpoint and MetadataEndpoint are URLs. Empty: the SDK's own settings (AWS_ENDPOINT_URL, AWS_EC2_METADATA_SERVICE_ENDPOINT, profiles).
	Endpoint, MetadataEndpoint string
	// Credentials replaces the SDK's credential chain.
	Credentials aws.CredentialsProvider

	Log     logrus.FieldLogger // nil: silent
	Meter   Meter              // told of every call of EC2; nil: nobody counts
	Version string             // blockvol's version, for the user agent; empty: "dev"
	Now     func() time.Time   // nil: time.Now
	Timing  Timing
}

// Meter counts calls of EC2. Its methods are called at any time and wait for nothing.
type Meter interface {
	// Called tells of a call that has ended, with all its repeats. code is EC2's error code, no-answer, given-up (the caller waits no longer), or
	// empty for success.
	Called(action, code string, took time.Duration)
	// Repeated tells of a call that is repeated, and of the code for which it is.
	Repeated(action, code string)
}

// silent is a Meter that counts nothing.
type silent struct{}

func (silent) Called(string, string, time.Duration) {}
func (silent) Repeated(string, string)              {}

// Timing holds every interval of the package. A zero field takes its default.
type Timing struct {
	Attempt    time.Duration // one HTTP request, 10 s
	MaxBackoff time.Duration // longest pause between two attempts of one call, 10 s
	Call       time.Duration // a method called without a deadline, 5 min
	Lookup     time.Duration // one shared look-up with all its attempts, 20 s
	Gather     time.Duration // longest time a look-up waits for the one in flight, 250 ms

	FirstPoll time.Duration // from CreateVolume's answer to the first look, 1.25 s [median to available is 1.5 s]
	Attaching time.Duration // from an accepted attach to the first look, 1 s
	Detaching time.Duration // from an accepted detach to the first look, 2 s [mostly 1 to 4 s; nobody waits for it as for an attach]
	PollMin   time.Duration // first interval of a poll, 500 ms
	PollMax   time.Duration // longest interval of a poll, 5 s; intervals grow by half

	Consistency time.Duration // how long EC2 may show the world as it was before an accepted call, 4 s
	Vanish      time.Duration // a volume is gone when it was absent twice this far apart, 5 s

	Late time.Duration // how long one step of an adoption may take, 2 s; it waits Consistency and this, so that claims of others are seen

	Proof   time.Duration // how long a volume once seen with our tags may be deleted without looking again, 2 s
	TagTime time.Duration // the same for changing its tags, 1 min
	Tokens  time.Duration // how long the generation of a name's client token is remembered, 6 h [EC2 forgets tokens after about 12 h]
}

func (t Timing) withDefaults() Timing {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Attempt, 10 * time.Second},
		{&t.MaxBackoff, 10 * time.Second},
		{&t.Call, 5 * time.Minute},
		{&t.Lookup, 20 * time.Second},
		{&t.Gather, 250 * time.Millisecond},
		{&t.FirstPoll, 1250 * time.Millisecond},
		{&t.Attaching, time.Second},
		{&t.Detaching, 2 * time.Second},
		{&t.PollMin, 500 * time.Millisecond},
		{&t.PollMax, 5 * time.Second},
		{&t.Consistency, 4 * time.Second},
		{&t.Vanish, 5 * time.Second},
		{&t.Late, 2 * time.Second},
		{&t.Proof, 2 * time.Second},
		{&t.TagTime, time.Minute},
		{&t.Tokens, 6 * time.Hour},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return t
}

// Client is one cluster's EBS volumes as seen from one instance. It is safe for concurrent use and needs no closing: what runs in the
// background ends by itself.
type Client struct {
	cfg    Config
	timing Timing
	log    logrus.FieldLogger
	now    func() time.Time

	retryers map[string]aws.RetryerV2
	secrets  secrets

	sdk      lazy[aws.Config]
	identity lazy[cloud.Host]
	ec2      lazy[api]
	machine  lazy[machine]
	refresh  lazy[struct{}]

	clock  ec2Clock
	byName *batcher
	byID   *batcher
	poll   *poller
	known  *memory
	tokens *tokens
	names  *allocator
}

var _ cloud.Cloud = (*Client)(nil)

// New makes a Client. It makes no network call and reads no file: region, credentials and identity are looked up by the first request
// that needs them, and again by the next one after a failure. The only error is ErrConfig.
func New(cfg Config) (*Client, error) {
	if cfg.Cluster == "" {
		return nil, cloud.Errorf(cloud.ErrConfig, "CLUSTER is not set: give all hosts that share volumes one name, different for each environment (for example CLUSTER=prod)")
	}
	if len(cfg.Cluster) > maxTagValue {
		return nil, cloud.Errorf(cloud.ErrConfig, "CLUSTER is %d characters long; %d are allowed", len(cfg.Cluster), maxTagValue)
	}
	if cfg.InstanceID != "" && !instanceID.MatchString(cfg.InstanceID) {
		return nil, cloud.Errorf(cloud.ErrConfig, "INSTANCE_ID=%q is no EC2 instance ID; they look like i-0123456789abcdef0", cfg.InstanceID)
	}
	if cfg.Version == "" {
		cfg.Version = "dev"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Meter == nil {
		cfg.Meter = silent{}
	}
	if cfg.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		cfg.Log = silent
	}
	c := &Client{cfg: cfg, timing: cfg.Timing.withDefaults(), log: cfg.Log, now: cfg.Now}
	c.retryers = makeRetryers(c.timing.MaxBackoff)
	c.known = newMemory(c.now)
	c.tokens = newTokens(cfg.Cluster, c.timing.Tokens, c.now)
	c.names = newAllocator(c.now, c.timing.Consistency)
	c.byName = c.newBatcher("tag:" + tagName)
	c.byID = c.newBatcher("volume-id")
	c.poll = &poller{timing: c.timing, now: c.now, ask: c.describeIDs, wake: make(chan struct{}, 1), waiters: map[*waiter]struct{}{}}
	return c, nil
}

// Warm looks up what the first Attach needs: identity, instance type, device names in use. It is meant for the background at start;
// its failure costs nothing, since every request looks up what it misses.
func (c *Client) Warm(ctx context.Context) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	_, err := c.getMachine(ctx)
	return err
}

// loadSDK reads the SDK's settings (environment, profiles). It makes no network call.
func (c *Client) loadSDK(ctx context.Context) (aws.Config, error) {
	return c.sdk.get(ctx, c.timing.Lookup, func(ctx context.Context) (aws.Config, error) {
		client := withTimeout(c.cfg.HTTPClient, c.timing.Attempt)
		if hidden, ok := client.(asIs); ok && c.cfg.Credentials != nil {
			client = hidden.HTTPClient // for AWS_CA_BUNDLE; no credentials are fetched by it with another dialer
		}
		options := []func(*config.LoadOptions) error{
			config.WithHTTPClient(client),
			config.WithAppID("blockvol"),
			config.WithAPIOptions([]func(*middleware.Stack) error{awsmiddleware.AddUserAgentKeyValue("blockvol", c.cfg.Version)}),
		}
		if c.cfg.Region != "" {
			options = append(options, config.WithRegion(c.cfg.Region))
		}
		if c.cfg.MetadataEndpoint != "" {
			options = append(options, config.WithEC2IMDSEndpoint(c.cfg.MetadataEndpoint))
		}
		if c.cfg.Credentials != nil {
			options = append(options, config.WithCredentialsProvider(c.cfg.Credentials))
		}
		loaded, err := config.LoadDefaultConfig(ctx, options...)
		if err != nil {
			return aws.Config{}, &cloud.Error{Kind: cloud.ErrConfig, Cause: err,
				Text: fmt.Sprintf("the AWS settings cannot be used: %v; check the AWS_ settings and, if mounted, the files of AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE", err)}
		}
		if c.cfg.HTTPClient != nil {
			loaded.HTTPClient = asIs{loaded.HTTPClient}
		}
		loaded.Credentials = &credentials{CredentialsProvider: loaded.Credentials, secrets: &c.secrets}
		return loaded, nil
	})
}

// getAPI returns the EC2 client; the first call decides the region.
func (c *Client) getAPI(ctx context.Context) (api, error) {
	return c.ec2.get(ctx, c.timing.Lookup, func(ctx context.Context) (api, error) {
		loaded, err := c.loadSDK(ctx)
		if err != nil {
			return nil, err
		}
		if loaded.Region == "" {
			loaded.Region = regionOfZone(c.cfg.Zone)
		}
		if loaded.Region == "" {
			host, err := c.Host(ctx)
			if err != nil {
				return nil, err
			}
			loaded.Region = host.Region
		}
		return ec2.NewFromConfig(loaded, func(o *ec2.Options) {
			if c.cfg.Endpoint != "" {
				o.BaseEndpoint = aws.String(c.cfg.Endpoint)
			}
		}), nil
	})
}

func (c *Client) metadata(loaded aws.Config) *imds.Client {
	return imds.NewFromConfig(loaded, func(o *imds.Options) {
		if c.cfg.MetadataEndpoint != "" {
			o.Endpoint = c.cfg.MetadataEndpoint
		}
		o.EnableFallback = aws.FalseTernary // IMDSv2 or nothing
	})
}

// bound gives a context without a deadline one.
func (c *Client) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.timing.Call)
}

// asIs hides the type of a client from the SDK's metadata client, which gives every BuildableClient another dialer.
type asIs struct{ HTTPClient }

// withTimeout limits one HTTP request, so that a connection that went dead is given up and the SDK tries again.
func withTimeout(client HTTPClient, limit time.Duration) HTTPClient {
	switch known := client.(type) {
	case nil:
		return awshttp.NewBuildableClient().WithTimeout(limit)
	case *awshttp.BuildableClient:
		return asIs{known.WithTimeout(limit)}
	case *http.Client:
		if known.Timeout != 0 {
			return known
		}
		limited := *known
		limited.Timeout = limit
		return &limited
	}
	return client
}
