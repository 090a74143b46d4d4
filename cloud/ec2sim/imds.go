package ec2sim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// session is a token of IMDSv2.
type session struct {
	instance string
	until    time.Time
}

const (
	tokenHeader    = "X-Aws-Ec2-Metadata-Token"
	ttlHeader      = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	maxTokenTTL    = 21600
	roleName       = "simulated"
	credentialLife = 6 * time.Hour
)

// roleKey is the access key of an instance's role. Calls that it signs are known to come from the instance.
func roleKey(instanceID string) string {
	sum := sha256.Sum256([]byte(instanceID))
	return "ASIA" + strings.ToUpper(hex.EncodeToString(sum[:8]))
}

// Metadata serves the instance metadata service of one instance, as the instance finds it at 169.254.169.254. Only IMDSv2: a request
// without a session token is refused with 401, as on an instance with HttpTokens=required.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html
func (s *Sim) Metadata(instanceID string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "EC2ws")
		w.Header().Set("Content-Type", "text/plain")
		if r.URL.Path == "/latest/api/token" {
			s.serveToken(w, r, instanceID)
			return
		}
		left, ok := s.checkToken(instanceID, r.Header.Get(tokenHeader))
		if !ok {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		w.Header().Set(ttlHeader, strconv.Itoa(int(left.Seconds())))
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		body, found := lookUp(s.metadata(instanceID), r.URL.Path)
		if !found {
			http.Error(w, "Not Found", http.StatusNotFound)
			return
		}
		fmt.Fprint(w, body)
	})
}

func (s *Sim) serveToken(w http.ResponseWriter, r *http.Request, instanceID string) {
	if r.Method != http.MethodPut {
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	if r.Header.Get("X-Forwarded-For") != "" { // The real one refuses what came through a proxy.
		http.Error(w, "Forbidden", http.StatusForbidden)
		return
	}
	ttl, err := strconv.Atoi(r.Header.Get(ttlHeader))
	if err != nil || ttl < 1 || ttl > maxTokenTTL {
		http.Error(w, "Bad Request", http.StatusBadRequest)
		return
	}
	token := randomHex(56)
	s.mu.Lock()
	now := s.now()
	for t, old := range s.sessions {
		if now.After(old.until) {
			delete(s.sessions, t)
		}
	}
	s.sessions[token] = session{instanceID, now.Add(time.Duration(ttl) * time.Second)}
	s.mu.Unlock()
	w.Header().Set(ttlHeader, strconv.Itoa(ttl))
	fmt.Fprint(w, token)
}

func (s *Sim) checkToken(instanceID, token string) (left time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.sessions[token]
	left = known.until.Sub(s.now())
	return left, ok && known.instance == instanceID && left > 0
}

// metadata is all that an instance is told, by path.
func (s *Sim) metadata(instanceID string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.state.Instances[instanceID]
	if i == nil {
		return nil
	}
	now := s.now().UTC().Truncate(time.Second)
	document, _ := json.MarshalIndent(map[string]any{ // Strings and nulls always encode.
		"accountId": s.cfg.Account, "architecture": instanceTypes[i.Type].arch, "availabilityZone": i.Zone, "billingProducts": nil,
		"devpayProductCodes": nil, "marketplaceProductCodes": nil, "imageId": i.image(), "instanceId": i.ID, "instanceType": i.Type,
		"kernelId": nil, "pendingTime": i.Launched.Format(time.RFC3339), "privateIp": i.address(), "ramdiskId": nil,
		"region": s.cfg.Region, "version": "2017-09-30",
	}, "", "  ")
	role, _ := json.MarshalIndent(map[string]string{
		"Code": "Success", "LastUpdated": now.Format(time.RFC3339), "Type": "AWS-HMAC", "AccessKeyId": roleKey(i.ID),
		"SecretAccessKey": "simulated", "Token": "simulated-session-of-" + i.ID, "Expiration": now.Add(credentialLife).Format(time.RFC3339),
	}, "", "  ")
	profile, _ := json.MarshalIndent(map[string]string{
		"Code": "Success", "LastUpdated": now.Format(time.RFC3339),
		"InstanceProfileArn": "arn:aws:iam::" + s.cfg.Account + ":instance-profile/" + roleName, "InstanceProfileId": "AIPA" + roleKey(i.ID)[4:],
	}, "", "  ")
	lifecycle := i.lifecycle()
	if lifecycle == "" {
		lifecycle = "on-demand"
	}
	meta := map[string]string{
		"ami-id":                               i.image(),
		"block-device-mapping/ami":             "xvda",
		"block-device-mapping/root":            rootDeviceName,
		"hostname":                             i.hostname(),
		"iam/info":                             string(profile),
		"iam/security-credentials/" + roleName: string(role),
		"instance-id":                          i.ID,
		"instance-life-cycle":                  lifecycle,
		"instance-type":                        i.Type,
		"local-hostname":                       i.hostname(),
		"local-ipv4":                           i.address(),
		"mac":                                  i.mac(),
		"network/interfaces/macs/" + i.mac() + "/mac":         i.mac(),
		"network/interfaces/macs/" + i.mac() + "/local-ipv4s": i.address(),
		"placement/availability-zone":                         i.Zone,
		"placement/availability-zone-id":                      zoneID(i.Zone),
		"placement/region":                                    s.cfg.Region,
		"reservation-id":                                      i.reservation(),
		"services/domain":                                     "amazonaws.com",
		"services/partition":                                  "aws",
	}
	for key, value := range i.Tags {
		meta["tags/instance/"+key] = value
	}
	all := map[string]string{"dynamic/instance-identity/document": string(document)}
	for path, value := range meta {
		all["meta-data/"+path] = value
	}
	return all
}

// lookUp finds a value, or lists a folder. The version in the path may be any date or latest.
func lookUp(all map[string]string, path string) (string, bool) {
	_, path, _ = strings.Cut(strings.TrimPrefix(path, "/"), "/")
	path = strings.TrimSuffix(path, "/")
	if value, ok := all[path]; ok {
		return value, true
	}
	prefix := path + "/"
	if path == "" {
		prefix = ""
	}
	var names []string
	for full := range all {
		if rest, ok := strings.CutPrefix(full, prefix); ok {
			name, _, folder := strings.Cut(rest, "/")
			if folder {
				name += "/"
			}
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return strings.Join(slices.Compact(names), "\n"), len(names) > 0
}

// mac gives every instance a hardware address of its own.
func (i *Instance) mac() string {
	sum := sha256.Sum256([]byte(i.ID))
	return fmt.Sprintf("06:%02x:%02x:%02x:%02x:%02x", sum[0], sum[1], sum[2], sum[3], sum[4])
}
