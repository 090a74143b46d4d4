package driver

import (
	"encoding/json"
	"fmt"
	"os"
)

// identity is what the volumes of a ledger belong to. A plugin whose settings no longer say the same sees another world in which all
// its volumes are "not found"; it must not pass that on to Docker as a fact.
type identity struct {
	Backend string `json:"backend"`
	Account string `json:"account,omitempty"`
	Region  string `json:"region"`
	Cluster string `json:"cluster"`
}

func (i identity) String() string {
	s := fmt.Sprintf("cluster %q, region %s, backend %s", i.Cluster, i.Region, i.Backend)
	if i.Account != "" {
		s += ", account " + i.Account
	}
	return s
}

// sameAs compares two identities; an account that is not known is not a difference.
func (i identity) sameAs(o identity) bool {
	if i.Account == "" || o.Account == "" {
		i.Account, o.Account = "", ""
	}
	return i == o
}

// readIdentity reads what write has written. The file's form never changes, so that a version older or newer than the one that wrote it
// still learns whose volumes Docker knows on this host, when it cannot read the ledger.
func readIdentity(path string) (identity, error) {
	var id identity
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &id)
	}
	if err == nil && (id.Backend == "" || id.Cluster == "") {
		err = fmt.Errorf("it names no backend or cluster")
	}
	if err != nil {
		return identity{}, err
	}
	return id, nil
}

// write replaces the file, unless it says the same already.
func (i identity) write(path string) error {
	if old, err := readIdentity(path); err == nil && old == i {
		return nil
	}
	data, err := json.Marshal(i)
	if err != nil {
		return err
	}
	return replaceFile(path, data)
}
