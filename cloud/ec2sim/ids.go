package ec2sim

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// EC2 has long IDs (17 hexadecimal digits) and knows old short ones (8).
var idPattern = regexp.MustCompile(`^[a-z]+-([0-9a-f]{8}|[0-9a-f]{17})$`)

func newID(prefix string) string { return prefix + "-" + randomHex(17) }

func randomHex(digits int) string {
	b := make([]byte, (digits+1)/2)
	rand.Read(b) // Never fails: see crypto/rand.
	return hex.EncodeToString(b)[:digits]
}

// newRequestID returns a UUID, as EC2 sends with every answer.
func newRequestID() string {
	h := randomHex(32)
	return fmt.Sprintf("%s-%s-4%s-a%s-%s", h[:8], h[8:12], h[13:16], h[17:20], h[20:])
}

func checkVolumeID(id string) error {
	if !strings.HasPrefix(id, "vol-") {
		return errorf(400, "InvalidParameterValue", "Value (%s) for parameter volumeId is invalid. Expected: 'vol-...'.", id)
	}
	if !idPattern.MatchString(id) {
		return errorf(400, "InvalidVolumeID.Malformed", "Invalid id: \"%s\" (expecting \"vol-...\")", id)
	}
	return nil
}

func checkSnapshotID(id string) error {
	if !strings.HasPrefix(id, "snap-") {
		return errorf(400, "InvalidParameterValue", "Value (%s) for parameter snapshotId is invalid. Expected: 'snap-...'.", id)
	}
	if !idPattern.MatchString(id) {
		return errorf(400, "InvalidSnapshotID.Malformed", "Invalid id: \"%s\" (expecting \"snap-...\")", id)
	}
	return nil
}

func checkInstanceID(id string) error {
	if !strings.HasPrefix(id, "i-") || !idPattern.MatchString(id) {
		return errorf(400, "InvalidInstanceID.Malformed", "Invalid id: \"%s\" (expecting \"i-...\")", id)
	}
	return nil
}

// serial is what a host's kernel shows as the serial of an EBS volume's NVMe device: the volume's ID without the dash.
func serial(volumeID string) string { return strings.ReplaceAll(volumeID, "-", "") }
