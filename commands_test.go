package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/blockvol/blockvol/cli"
	"github.com/blockvol/blockvol/e2e/pages"
	"github.com/spf13/cobra"
)

// notRun are the commands of the documents that TestTheCommandsOfTheDocumentsWork does not run, and why. What runs the like of them instead
// is named where there is something.
var notRun = []struct{ command, why string }{
	{`\b(NAME|VOLUME|VOLUME-ID|VOL|PROFILE|NODE|REF|vol-ID|volID|i-ID|nvmeXn1|plugins/ID)\b`, "it has a word to fill in"},
	{`^blockvol .*\[flags\]$`, "a verb's usage; a test compares it with the code"},
	{`^(aws |sed 's/CLUSTER)`, "needs an AWS account; the policies and actions are compared with the code, and the AWS CLI is run against the simulator"},
	{`^docker plugin (install|upgrade)\b`, "needs a registry: TestThePluginIsPushedToARegistryAndInstalledFromItWithItsSettings"},
	{`^docker plugin (disable|enable|set|rm)\b`, "takes the plugin away from the other tests: TestAPluginIsUpgradedUnderAContainerAndWorksBesideAnOlderOne"},
	{`^docker blockvol drain -y$`, "takes the volumes of the other tests: TestThePersonOnCallMovesVolumesAndDrainsAHost"},
	{`^rm -f /usr/local/lib/docker/cli-plugins/docker-blockvol$`, "removes one file"},
	{`^docker (service|node) `, "needs a Swarm: TestASwarmMovesItsVolumesAndLosesNothing"},
	{`^for v in .*xargs -r docker stop$|^blockvol drain -y --timeout`, "ends containers of other tests: TestThePersonOnCallMovesVolumesAndDrainsAHost"},
	{`^(blockvol adopt|docker volume create -d blockvol -o (volume-id|selector)=)`, "needs a volume that exists: TestVolumesThatExistAreTakenOverWithTheirData"},
	{`^blockvol (undelete|prune)\b`, "needs a volume that was removed: TestARemovedVolumeIsBroughtBackAsItWas, TestAPruneDeletesWhatNobodyCanMissAndShowsTheRest"},
	{`-o snapshot-id=snap-`, "needs a snapshot that exists: TestAVolumeOfAForeignSnapshotIsUsedAsItIs"},
	{`^docker volume create .*-o reclaim=retain`, "leaves an EBS volume: TestARemovedVolumeThatIsKeptIsGoneForDockerAndThereForItsOwner"},
	{`^(docker )?blockvol update `, "EC2 takes the next modification of a volume only when the last one is completed: TestAVolumeGrowsUnderItsContainerAndIsChangedByItsOptions"},
	{`^blockvol profile |^docker volume create .*-o profile=|create -d blockvol -o size=50GiB cache$`, "changes the profiles of the other tests: TestAProfileIsChosenByNameAndChangedWhileThePluginRuns"},
	{`^docker volume inspect pgdata +# on each host`, "needs REX-Ray"},
	{`^umount /mnt/pgdata$|^mkfs.ext4 `, "needs a disk of the reader's"},
	{`^make `, "builds, or runs the tests"},
	{`^(install -|systemctl |journalctl )`, "needs systemd as the host's init: TestTheSameBinaryServesAsAServiceWithoutPluginPackaging"},
	{`^podman `, "needs Podman; the page says how it was tried"},
	{`\| jq `, "needs jq, which the tests do not install"},
	{`^(dmesg |blockvol (health|ls|doctor) +#)`, "only looks, and shows what other tests do at the time"},
	{`^curl -X PUT .*/_sim/|-d '\{"retention"|^blockvol sim `, "needs the simulator's address: the tests of cloud/ec2sim"},
}

func TestEveryCommandOfTheDocumentsIsRunOrHasAReason(t *testing.T) {
	all, err := pages.Blocks(".")
	if err != nil {
		t.Fatal(err)
	}
	var reasons []*regexp.Regexp
	for _, r := range notRun {
		reasons = append(reasons, regexp.MustCompile(r.command))
	}
	used := make([]bool, len(notRun))
	ran := 0
	for _, b := range all {
		switch {
		case b.Mark == "run":
			ran += len(b.Commands())
			continue
		case b.Mark != "" || !b.IsShell():
			continue
		}
		for _, c := range b.Commands() {
			i := slices.IndexFunc(reasons, func(r *regexp.Regexp) bool { return r.MatchString(c) })
			if i < 0 {
				t.Errorf("%s, line %d: nothing runs %q. Put <!-- run --> on a line before the block, then TestTheCommandsOfTheDocumentsWork runs it; "+
					"or <!-- shown --> if it is what something prints; or say in commands_test.go why it cannot be run", b.Page, b.Line, c)
				continue
			}
			used[i] = true
		}
	}
	for i, r := range notRun {
		if !used[i] {
			t.Errorf("no command is like %q any more (%s)", r.command, r.why)
		}
	}
	if ran < 20 {
		t.Errorf("only %d commands are run", ran)
	}
	have := testNames(t)
	for _, r := range notRun {
		for _, name := range regexp.MustCompile(`Test[A-Za-z0-9]+`).FindAllString(r.why, -1) {
			if !slices.ContainsFunc(have, func(h string) bool { return strings.HasPrefix(h, name) }) {
				t.Errorf("no test's name begins with %s (%s)", name, r.why)
			}
		}
	}
}

// A verb or a flag that was renamed must not live on in the documents, in commands and in running text.
func TestTheVerbsAndFlagsOfTheDocumentsExist(t *testing.T) {
	inText := regexp.MustCompile("`(?:docker )?(blockvol [a-z][^`]*)`")
	n := 0
	for _, p := range pagesOf(t) {
		for i, l := range p.lines {
			var found []string
			for _, m := range inText.FindAllStringSubmatch(l, -1) {
				found = append(found, m[1])
			}
			if strings.HasPrefix(l, "    blockvol ") || strings.HasPrefix(l, "    docker blockvol ") {
				found = append(found, strings.TrimPrefix(strings.TrimSpace(l), "docker "))
			}
			for _, c := range found {
				if err := parses(c); err != nil {
					t.Errorf("%s, line %d: %q: %v", p.path, i+1, c, err)
				}
				n++
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d commands were found", n)
	}
}

// parses says what is wrong with the verb and the flags of a command that begins with blockvol.
func parses(command string) error {
	command, _, _ = strings.Cut(command, " #")
	command, _, _ = strings.Cut(command, " | ")
	command, _, _ = strings.Cut(command, " || ")
	words := strings.Fields(command)[1:]
	switch words[0] {
	case "serve", "sim", "completion", "VERB", "is": // not of package cli; "blockvol is shutting down" is a message
		return nil
	}
	root := &cobra.Command{Use: "blockvol", SilenceErrors: true, SilenceUsage: true}
	root.SetOut(io.Discard)
	root.AddCommand(cli.Commands(cli.Config{})...)
	verb, rest, err := root.Find(words)
	if err != nil || verb == root {
		return fmt.Errorf("there is no verb %s", words[0])
	}
	for _, w := range rest {
		name, _, _ := strings.Cut(w, "=")
		if long, ok := strings.CutPrefix(name, "--"); ok && long != "" && long != "help" && verb.Flags().Lookup(long) == nil {
			return fmt.Errorf("%s has no flag %s", verb.CommandPath(), name)
		}
	}
	return nil
}
