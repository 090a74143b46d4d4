package e2e

import (
	"strings"
	"testing"
)

// nonRootImage builds an image whose user is not root and which has content of that user's at /srv/app.
func nonRootImage(t *testing.T, e *Engine) string {
	t.Helper()
	image := "blockvol-test/" + name(t)
	dockerfile := strings.Join([]string{
		"FROM " + busybox,
		"RUN mkdir -p /srv/app/conf && echo default >/srv/app/conf/settings && ln -s conf/settings /srv/app/link && chmod 600 /srv/app/conf/settings" +
			" && chown -R 1000:1000 /srv/app && chmod 700 /srv/app",
		"USER 1000",
	}, "\n")
	t.Cleanup(func() {
		if err := e.Try("rmi", "-f", image).Err(); err != nil {
			t.Errorf("an image is left: %v", err)
		}
	})
	if err := e.TryInput(dockerfile, "build", "-q", "--network", "none", "-t", image, "-").Err(); err != nil {
		t.Fatal(err)
	}
	return image
}

func TestAnEmptyVolumeGetsTheImagesContentWithOwnerAndModeOnce(t *testing.T) {
	t.Parallel()
	e := shared
	image := nonRootImage(t, e)
	look := "stat -c '%n %u:%g %a' . conf conf/settings && cat link && ls -A && "
	for _, fstype := range []string{"ext4", "xfs"} {
		t.Run(fstype, func(t *testing.T) {
			v := e.NewVolume(t, "size=1GiB", "fstype="+fstype)
			run := func(script string) string {
				return e.Docker(t, "run", "--rm", "--name", e.Container(t), "-w", "/srv/app", "--mount", e.on(v, "/srv/app"), image, "sh", "-c", script)
			}
			want := ". 1000:1000 700\nconf 1000:1000 755\nconf/settings 1000:1000 600\ndefault\nconf\nlink"
			if got := run(look + "echo changed >conf/settings && rm link && touch mine"); got != want {
				t.Errorf("at the first start the container sees:\n%s\n- not:\n%s", got, want)
			}
			// The image is not copied over what is there.
			if got := run("cat conf/settings && ls -A"); got != "changed\nconf\nmine" {
				t.Errorf("at the second start the container sees:\n%s", got)
			}
			e.Detached(t, v)
			if got := run("cat conf/settings && ls -A && touch again"); got != "changed\nconf\nmine" {
				t.Errorf("after the volume was detached the container sees:\n%s", got)
			}
		})
	}
}

func TestWithNocopyTheVolumesRootIsEmpty(t *testing.T) {
	t.Parallel()
	e := shared
	image := nonRootImage(t, e)
	for _, test := range []struct {
		name, want string
		options    []string
		flags      func(v string) []string
	}{
		{"mount", "0:0 755", nil, func(v string) []string { return []string{"--mount", e.on(v, "/srv/app", "volume-nocopy")} }},
		{"v", "0:0 755", []string{"fstype=xfs"}, func(v string) []string { return []string{"-v", v + ":/srv/app:nocopy"} }},
		{"owner", "1000:1000 750", []string{"uid=1000", "gid=1000", "mode=0750"}, func(v string) []string { return []string{"-v", v + ":/srv/app:nocopy"} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := e.NewVolume(t, append(test.options, "size=1GiB")...)
			args := append([]string{"run", "--rm", "--name", e.Container(t), "--user", "0"}, test.flags(v)...)
			got := e.Docker(t, append(args, image, "sh", "-c", "stat -c '%u:%g %a' /srv/app; ls -A /srv/app")...)
			if got != test.want {
				t.Errorf("the container sees %q, not an empty folder of %s", got, test.want)
			}
		})
	}
}

// Where the image has no folder at the place, nothing but the volume's own options can give it to the user.
func TestANonRootContainerWritesToAVolumeThatIsGivenToItsUser(t *testing.T) {
	t.Parallel()
	e := shared
	v := e.NewVolume(t, "size=1GiB", "uid=1000", "gid=1000", "mode=0700")
	got := e.Busybox(t, []string{"--user", "1000:1000", "--mount", e.on(v, "/new")}, "touch /new/mine && stat -c '%u:%g %a' /new /new/mine")
	if got != "1000:1000 700\n1000:1000 644" {
		t.Errorf("the container sees:\n%s", got)
	}
	if r := e.Try("run", "--rm", "--name", e.Container(t), "--user", "1001", "--mount", e.on(v, "/new"), busybox, "ls", "/new"); r.Code == 0 {
		t.Error("another user reads a folder of mode 0700")
	}
}
