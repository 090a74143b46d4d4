package ebs

import (
	"context"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/smithy-go/middleware"

	"github.com/blockvol/blockvol/cloud"
)

// background is the operation of calls that no request has asked for.
const background = "background"

// agent puts into a call's user agent, which CloudTrail shows, what it is made for: blockvol-cluster/prod blockvol-operation/mount. Letters that
// may not stand there become dashes. A look-up that several share names the operation of the first.
func (c *Client) agent(ctx context.Context) []func(*middleware.Stack) error {
	op := cloud.Operation(ctx)
	if op == "" {
		op = background
	}
	return []func(*middleware.Stack) error{
		awsmiddleware.AddUserAgentKeyValue("blockvol-cluster", c.cfg.Cluster),
		awsmiddleware.AddUserAgentKeyValue("blockvol-operation", op),
	}
}
