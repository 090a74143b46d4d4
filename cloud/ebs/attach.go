package ebs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/blockvol/blockvol/cloud"
)

// nameAttempts bounds how many device names one Attach tries.
const nameAttempts = 16

// Attach asks EC2 to attach v to this instance.
func (c *Client) Attach(ctx context.Context, v cloud.Volume) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return c.explain("attach", ref{id: v.ID, name: v.Name, zone: v.Zone}, c.attach(ctx, v))
}

func (c *Client) attach(ctx context.Context, v cloud.Volume) error {
	if v.Newer != nil {
		return v.Newer
	}
	// v itself is the proof of ownership, as long as this client did hand it out.
	if err := c.prove(ctx, v.ID, c.known.proven(v.ID, 0)); err != nil {
		return err
	}
	host, err := c.Host(ctx)
	if err != nil {
		return err
	}
	m, err := c.getMachine(ctx)
	if err != nil {
		return fmt.Errorf("volume %q (%s) is not attached: %w", v.Name, v.ID, err)
	}
	if !m.nitro {
		return cloud.Errorf(cloud.ErrHost, "volume %q (%s) cannot be used on this instance: %s is no Nitro type, so its kernel does not show which device is which volume; "+
			"use a Nitro instance type (t3, m5, c5, r5 and newer)", v.Name, v.ID, m.kind)
	}
	if done, err := c.settled(v, host); done || err != nil {
		return err
	}
	return c.attachWithName(ctx, v, host, m)
}

// settled decides by what is known of the volume whether AttachVolume is needed at all.
func (c *Client) settled(v cloud.Volume, host cloud.Host) (done bool, err error) {
	if v.Zone != host.Zone {
		return false, cloud.Errorf(cloud.ErrZone, "volume %q (%s) is in %s and this instance (%s) is in %s: an EBS volume can be attached only in its own zone; "+
			"run the container on a host in %s", v.Name, v.ID, v.Zone, host.ID, host.Zone, v.Zone)
	}
	if v.MultiAttach {
		return false, cloud.Errorf(cloud.ErrState, "volume %q (%s) has Multi-Attach enabled: two hosts could write to one filesystem and destroy it; turn Multi-Attach off", v.Name, v.ID)
	}
	if a, ok := v.Elsewhere(host.ID); ok {
		return false, &cloud.HolderError{Volume: v.Name, ID: v.ID, Host: a.Host, State: a.State}
	}
	if a, ok := v.On(host.ID); ok && (a.State == cloud.Attached || a.State == cloud.Attaching) {
		// What v says may be older than a detach of our own.
		return c.now().Sub(c.known.get(v.ID).detached) > c.timing.Consistency, nil
	}
	if v.State != cloud.Available && v.State != cloud.InUse {
		return false, cloud.Errorf(cloud.ErrState, "volume %q (%s) is %s and cannot be attached", v.Name, v.ID, v.State)
	}
	return false, nil
}

// attachWithName finds a device name that EC2 takes.
func (c *Client) attachWithName(ctx context.Context, v cloud.Volume, host cloud.Host, m machine) error {
	refreshed := false
	for attempt := 0; ; attempt++ {
		name, full := c.names.reserve(v.ID, m)
		if full {
			if !refreshed {
				if err := c.refreshNames(ctx); err != nil {
					return err
				}
				refreshed = true
				continue
			}
			return c.limitError(v, host, m, nil)
		}
		err := c.attachAs(ctx, v, host, name)
		if _, message := apiCode(err); hasCode(err, "InvalidParameterValue", "InvalidDevice.InUse") && strings.Contains(message, "already in use") && attempt < nameAttempts {
			c.names.refused(name)
			continue
		}
		if err != nil {
			c.names.release(name)
		}
		if hasCode(err, "AttachmentLimitExceeded") {
			if refreshErr := c.refreshNames(ctx); refreshErr == nil {
				return c.limitError(v, host, m, err)
			}
		}
		return err
	}
}

// limitError tells the numbers; cause is EC2's own refusal, if it was asked.
func (c *Client) limitError(v cloud.Volume, host cloud.Host, m machine, cause error) error {
	text := fmt.Sprintf("volume %q (%s) cannot be attached to %s: %s; stop a container that uses another volume, run this one on another host, or use a larger instance type",
		v.Name, v.ID, host.ID, c.names.load(m))
	if _, message := apiCode(cause); message != "" {
		text += " (EC2: " + message + "; AttachmentLimitExceeded)"
	}
	return &cloud.Error{Kind: cloud.ErrLimit, Text: text, Cause: cause}
}

// attachAs asks for the attachment under one device name until EC2's answer is a fact: accepted, held by somebody, or refused.
func (c *Client) attachAs(ctx context.Context, v cloud.Volume, host cloud.Host, name string) error {
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return err
	}
	end := c.now().Add(c.timing.Consistency)
	for pause := c.timing.PollMin; ; pause = c.timing.grow(pause) {
		_, err = invoke(ctx, c, "AttachVolume", ec2api.AttachVolume, &ec2.AttachVolumeInput{
			VolumeId: aws.String(v.ID), InstanceId: aws.String(host.ID), Device: aws.String(name)})
		if err == nil {
			c.accepted(v.ID, name)
			return nil
		}
		_, message := apiCode(err)
		if !hasCode(err, "VolumeInUse", "IncorrectState", "InvalidVolume.NotFound") || strings.Contains(message, host.ID) {
			return err // an IncorrectState that names the instance is about the instance
		}
		// These are decided by what the volume is now. An answer that contradicts EC2's refusal is old, or the refusal is.
		now, lookErr := c.lookByID(ctx, v.ID)
		if errors.Is(lookErr, cloud.ErrNotFound) && hasCode(err, "InvalidVolume.NotFound") {
			if c.known.proven(v.ID, c.timing.Consistency) && sleep(ctx, pause) == nil {
				continue // it is new, and not known everywhere yet
			}
			return lookErr
		}
		if lookErr != nil {
			return err
		}
		if a, ok := now.Elsewhere(host.ID); ok {
			return &cloud.HolderError{Volume: v.Name, ID: v.ID, Host: a.Host, State: a.State}
		}
		if a, ok := now.On(host.ID); ok {
			switch a.State {
			case cloud.Attached, cloud.Attaching:
				c.names.release(name)
				c.accepted(v.ID, a.Device)
				return nil
			case cloud.Busy:
				return c.busy(ref{name: v.Name, id: v.ID}, a)
			}
			return cloud.Errorf(cloud.ErrState, "volume %q (%s) is still %s from this instance: it can be attached again when that has ended", v.Name, v.ID, a.State)
		}
		if now.State != cloud.Available && now.State != cloud.InUse {
			return cloud.Errorf(cloud.ErrState, "volume %q (%s) is %s and cannot be attached", v.Name, v.ID, now.State)
		}
		if !c.now().Before(end) {
			return err
		}
		if sleepErr := sleep(ctx, pause); sleepErr != nil {
			return err
		}
	}
}

func (c *Client) accepted(id, device string) {
	c.names.attached(device, id)
	c.known.change(id, func(r *record, now time.Time) { r.attached, r.device = now, device })
}

// Detach asks EC2 to detach the volume from this instance.
func (c *Client) Detach(ctx context.Context, id string) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return c.explain("detach", c.refer(id), c.detach(ctx, id))
}

func (c *Client) detach(ctx context.Context, id string) error {
	// An attachment to this instance that carried our tags once is ours to end, also of a volume that is too new for anything else.
	if !c.known.proven(id, 0) {
		if _, err := c.lookByID(ctx, id); err != nil && !c.heldFormer(ctx, id) {
			return err
		}
	}
	host, err := c.Host(ctx)
	if err != nil {
		return err
	}
	ec2api, err := c.getAPI(ctx)
	if err != nil {
		return err
	}
	for pause := c.timing.PollMin; ; pause = c.timing.grow(pause) {
		// The instance is always named, so that a volume which moved on is not taken from its new holder.
		_, err = invoke(ctx, c, "DetachVolume", ec2api.DetachVolume, &ec2.DetachVolumeInput{VolumeId: aws.String(id), InstanceId: aws.String(host.ID)})
		if err == nil {
			c.known.change(id, func(r *record, now time.Time) { r.detached = now })
			return nil
		}
		var leaving, free bool
		_, message := apiCode(err)
		switch {
		case hasCode(err, "InvalidAttachment.NotFound", "InvalidVolume.NotFound"):
			free = true
		case hasCode(err, "IncorrectState", "VolumeInUse"):
			// What cannot be detached is detaching already, or its attach has not ended yet.
			if free = strings.Contains(message, "the 'available' state"); !free {
				leaving, free = c.lookWhetherLeft(ctx, id, host)
			}
		default:
			return err
		}
		switch {
		case leaving:
			return nil
		case free && !c.justAttached(id):
			c.names.gone(id)
			return nil
		}
		if sleepErr := sleep(ctx, pause); sleepErr != nil {
			return err
		}
	}
}

// lookWhetherLeft asks EC2 whether the volume is leaving this instance, or not there at all.
func (c *Client) lookWhetherLeft(ctx context.Context, id string, host cloud.Host) (leaving, free bool) {
	v, err := c.lookByID(ctx, id)
	if err != nil {
		return false, errors.Is(err, cloud.ErrNotFound)
	}
	a, here := v.On(host.ID)
	return here && (a.State == cloud.Detaching || a.State == cloud.Busy), !here
}

// justAttached reports whether EC2 accepted an attachment so lately that it may not know of it everywhere.
func (c *Client) justAttached(id string) bool {
	r := c.known.get(id)
	return r.attached.After(r.detached) && c.now().Sub(r.attached) < c.timing.Consistency
}

func (c *Client) busy(r ref, a cloud.Attachment) error {
	return cloud.Errorf(cloud.ErrBusy, "%s cannot be detached from this instance: EC2 reports the attachment (of %s) as busy, because something on this host still uses the device; "+
		"find it with lsof, findmnt or lsblk and stop it, then the detach completes by itself", r, a.Since.UTC().Format(time.RFC3339))
}
