package ec2sim

import (
	"fmt"
	"io"
	"maps"
	"os"
	"time"
)

// ImportSpec is a volume that is simply there, as if made long ago.
type ImportSpec struct {
	Image       string            `json:"image"`   // a file whose content the volume gets; empty: a blank volume
	SizeGiB     int64             `json:"sizeGiB"` // 0: the image's size, rounded up
	Type        string            `json:"type"`    // default gp3
	Zone        string            `json:"zone"`    // default: the region's zone a
	IOPS        int64             `json:"iops"`
	Throughput  int64             `json:"throughput"`
	SnapshotID  string            `json:"snapshotId"` // shown as the volume's origin; need not exist
	Encrypted   bool              `json:"encrypted"`
	KMSKeyID    string            `json:"kmsKeyId"`
	MultiAttach bool              `json:"multiAttach"`
	Created     time.Time         `json:"created,omitzero"` // default: now
	Tags        map[string]string `json:"tags"`             // any; limits do not apply
}

// Import makes a volume that is available at once, and returns its ID.
func (s *Sim) Import(spec ImportSpec) (string, error) {
	v := &volume{
		ID: newID("vol"), Type: spec.Type, Zone: spec.Zone, State: "available", SizeGiB: spec.SizeGiB, IOPS: spec.IOPS, Throughput: spec.Throughput,
		SnapshotID: spec.SnapshotID, Encrypted: spec.Encrypted, KMSKeyID: spec.KMSKeyID, MultiAttach: spec.MultiAttach,
		Created: s.now().UTC().Truncate(time.Millisecond), Tags: maps.Clone(spec.Tags),
	}
	if !spec.Created.IsZero() {
		v.Created = spec.Created.UTC()
	}
	if v.Type == "" {
		v.Type = "gp3"
	}
	if v.Zone == "" {
		v.Zone = s.cfg.Region + "a"
	}
	if !s.hasZone(v.Zone) {
		return "", fmt.Errorf("ec2sim: import: no zone %q in region %s", v.Zone, s.cfg.Region)
	}
	var image *os.File
	var length int64
	if spec.Image != "" {
		f, err := os.Open(spec.Image)
		if err != nil {
			return "", fmt.Errorf("ec2sim: import: %w", err)
		}
		defer f.Close()
		size, err := f.Seek(0, io.SeekEnd) // Also right for block devices.
		if err != nil {
			return "", fmt.Errorf("ec2sim: import: %w", err)
		}
		need := (size + 1<<30 - 1) >> 30
		if v.SizeGiB == 0 {
			v.SizeGiB = max(1, need)
		}
		if v.SizeGiB < need {
			return "", fmt.Errorf("ec2sim: import: %s needs %d GiB, not %d", spec.Image, need, v.SizeGiB)
		}
		image, length = f, size
	}
	if err := v.fit(); err != nil {
		return "", fmt.Errorf("ec2sim: import: %w", err)
	}
	file := s.BackingFile(v.ID)
	if err := makeSparse(file, v.SizeGiB<<30); err != nil {
		return "", fmt.Errorf("ec2sim: import: %w", err)
	}
	if image != nil {
		if err := fill(file, image, length); err != nil {
			os.Remove(file)
			return "", fmt.Errorf("ec2sim: import %s: %w", spec.Image, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setKey(v)
	s.state.Volumes[v.ID] = v
	s.touch(v)
	s.save()
	return v.ID, nil
}

// fill copies an image of a length into a file, to the disk.
func fill(file string, image *os.File, length int64) error {
	out, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := copySparse(out, image, length); err != nil {
		return err
	}
	return out.Sync()
}
