package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAFormatThatWasKilledIsDoneAgainAndMounts(t *testing.T) {
	const kills = 20
	for fstype, size := range map[string]int64{"ext4": 256 * gib, "xfs": tib} {
		t.Run(fstype, func(t *testing.T) {
			m := newMachine(t)
			ctx := soon(t)
			d, _ := m.disk(size)
			began := time.Now()
			must(t, m.Format(ctx, d, fstype, FormatOptions{}))
			whole := time.Since(began)
			target := m.target()
			killed := 0
			kinds := map[string]int{}
			for i := range kills {
				ctx := soon(t)
				d, l := m.disk(size)
				cut, cancel := context.WithTimeout(ctx, whole*time.Duration(i+1)/(kills+2))
				if err := m.Format(cut, d, fstype, FormatOptions{}); err != nil {
					killed++
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Fatalf("kill %d: %v", i, err)
					}
				}
				cancel()
				c, err := m.Inspect(ctx, d)
				must(t, err)
				kinds[c.Kind]++
				if got := Decide("formatting:i-1", "i-1", false, fstype, c, nil); got.Action != FormatAgain {
					t.Fatalf("kill %d: %v (%s)", i, got.Action, got.Reason)
				}
				must(t, m.Format(ctx, d, fstype, FormatOptions{Overwrite: true}))
				must(t, m.Check(ctx, d, fstype))
				must(t, m.Mount(ctx, d, target, fstype, nil))
				must(t, m.Unmount(target))
				l.detach()
				must(t, os.Remove(l.image))
			}
			t.Logf("%d of %d killed in the middle of %s; found then: %v", killed, kills, whole, kinds)
			if killed < kills/4 {
				t.Errorf("only %d of %d were killed in the middle", killed, kills)
			}
		})
	}
}

func TestFormatOptionsReachTheFilesystem(t *testing.T) {
	m := newMachine(t)
	d, _ := m.disk(512 * mib)
	must(t, m.Format(soon(t), d, "ext4", FormatOptions{Label: "data", Args: []string{"-E", "stride=16", "-N5000", "-O", "^resize_inode"}}))
	said := command(t, "dumpe2fs", "-h", d.Path)
	for _, want := range []string{"Filesystem volume name:   data", "RAID stride:              16", "Errors behavior:          Remount read-only", "Reserved block count:     0"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing in: %s", want, said)
		}
	}
	if strings.Contains(said, "resize_inode") {
		t.Error("-O was not followed")
	}
	d, _ = m.disk(512 * mib)
	must(t, m.Format(soon(t), d, "xfs", FormatOptions{Label: "data", Args: []string{"-m", "reflink=0", "-d", "agcount=3"}}))
	if said := command(t, "xfs_db", "-r", "-c", "sb 0", "-c", "print agcount fname", d.Path); !strings.Contains(said, "agcount = 3") || !strings.Contains(said, `fname = "data`) {
		t.Error(said)
	}
}

func TestMkfsCommandLines(t *testing.T) {
	for _, c := range []struct {
		fstype string
		o      FormatOptions
		want   string // empty: refused
	}{
		{"ext4", FormatOptions{}, "-q -E nodiscard,lazy_itable_init=1,lazy_journal_init=1 -e remount-ro -m 0 DEV"},
		{"ext4", FormatOptions{Overwrite: true}, "-q -E nodiscard,lazy_itable_init=1,lazy_journal_init=1 -e remount-ro -m 0 -F DEV"},
		{"ext4", FormatOptions{Args: []string{"-E", "stride=8", "-b4096"}}, "-q -E nodiscard,lazy_itable_init=1,lazy_journal_init=1,stride=8 -e remount-ro -m 0 -b 4096 DEV"},
		{"ext4", FormatOptions{Args: []string{"-b", "-4096"}}, "-q -E nodiscard,lazy_itable_init=1,lazy_journal_init=1 -e remount-ro -m 0 -b -4096 DEV"},
		{"xfs", FormatOptions{Label: "x", Overwrite: true}, "-q -K -f -L x DEV"},
		{"xfs", FormatOptions{Args: []string{"-m", "bigtime=0", "-m", "reflink=0"}}, "-q -K -m bigtime=0 -m reflink=0 DEV"},
		{"ext4", FormatOptions{Label: "seventeen letters"}, ""},
		{"xfs", FormatOptions{Label: "thirteen long"}, ""},
		{"ext4", FormatOptions{Label: "a\nb"}, ""},
		{"ext4", FormatOptions{Args: []string{"/dev/sda"}}, ""},
		{"ext4", FormatOptions{Args: []string{"-F"}}, ""},
		{"ext4", FormatOptions{Args: []string{"-n"}}, ""},
		{"ext4", FormatOptions{Args: []string{"-S"}}, ""},
		{"ext4", FormatOptions{Args: []string{"-d", "/etc"}}, ""},
		{"ext4", FormatOptions{Args: []string{"-b"}}, ""},
		{"ext4", FormatOptions{Args: []string{"--help"}}, ""},
		{"ext4", FormatOptions{Args: []string{"-"}}, ""},
		{"ext4", FormatOptions{Args: []string{""}}, ""},
		{"ext4", FormatOptions{Args: []string{"-b", "4096", "1000"}}, ""},
		{"ext4", FormatOptions{Args: []string{"-J", "device=/dev/sda"}}, ""},
		{"ext4", FormatOptions{Args: []string{"-Estride=1,offset=4096"}}, ""},
		{"ext4", FormatOptions{Args: []string{"-O", "journal_dev"}}, ""},
		{"xfs", FormatOptions{Args: []string{"-f"}}, ""},
		{"xfs", FormatOptions{Args: []string{"-d", "name=/dev/sda"}}, ""},
		{"xfs", FormatOptions{Args: []string{"-l", "size=64m,logdev=/dev/sda"}}, ""},
		{"xfs", FormatOptions{Args: []string{"-r", "rtdev=/dev/sda"}}, ""},
		{"xfs", FormatOptions{Args: []string{"-p", "/etc/passwd"}}, ""},
	} {
		fs, err := lookup(c.fstype)
		must(t, err)
		args, err := fs.formatArgs(c.o)
		got := strings.ReplaceAll(strings.Join(args, " "), toolFD, "DEV")
		if got != c.want || (c.want == "") != errors.Is(err, ErrOption) {
			t.Errorf("%s %+v: %q, %v", c.fstype, c.o, got, err)
		}
	}
}

func TestAFormatFailsWithTheToolsOwnWords(t *testing.T) {
	m := newMachine(t)
	ctx := soon(t)
	d, _ := m.disk(512 * mib)
	claim, err := m.Claim(d)
	must(t, err)
	for _, fstype := range Filesystems() {
		err := m.Format(ctx, d, fstype, FormatOptions{Overwrite: true})
		if err == nil || !strings.Contains(err.Error(), d.Path+" ") || !strings.Contains(err.Error(), "mkfs."+fstype) || strings.Contains(err.Error(), toolFD) {
			t.Errorf("on a device that is held: %v", err)
		}
	}
	must(t, claim.Release())
	if err := m.Format(ctx, d, "ext4", FormatOptions{Args: []string{"-O", "nonsense"}}); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("%v", err)
	}
	if err := m.Format(ctx, d, "btrfs", FormatOptions{}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("%v", err)
	}
	// xfs does not overwrite what it knows unless it is told to.
	must(t, m.Format(ctx, d, "ext4", FormatOptions{}))
	if err := m.Format(ctx, d, "xfs", FormatOptions{}); err == nil || !strings.Contains(err.Error(), "existing filesystem") {
		t.Errorf("%v", err)
	}
}

func TestAMissingToolIsNamed(t *testing.T) {
	m := newMachine(t)
	d, _ := m.disk(64 * mib)
	t.Setenv("PATH", m.dir)
	for name, err := range map[string]error{
		"mkfs.ext4": m.Format(soon(t), d, "ext4", FormatOptions{}),
		"mkfs.xfs":  m.Format(soon(t), d, "xfs", FormatOptions{}),
		"e2fsck":    m.Check(soon(t), d, "ext4"),
		"blkid":     func() error { _, err := m.Inspect(soon(t), d); return err }(),
	} {
		if !errors.Is(err, ErrTool) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fakeTool puts a script in the place of a tool.
func (m *machine) fakeTool(name, script string) {
	m.t.Helper()
	dir := filepath.Join(m.dir, "bin")
	must(m.t, os.MkdirAll(dir, 0o755))
	must(m.t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	if !strings.HasPrefix(os.Getenv("PATH"), dir) {
		m.t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	}
}

func TestAToolIsKilledWithItsChildren(t *testing.T) {
	m := newMachine(t)
	d, _ := m.disk(64 * mib)
	pids := filepath.Join(m.dir, "pids")
	m.fakeTool("mkfs.ext4", fmt.Sprintf("echo beginning; sleep 100 & echo $! >%s; wait", pids))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	began := time.Now()
	err := m.Format(ctx, d, "ext4", FormatOptions{})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "beginning") || time.Since(began) > 10*killGrace {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	var child int
	b, err := os.ReadFile(pids)
	must(t, err)
	_, err = fmt.Sscan(string(b), &child)
	must(t, err)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		if err != nil || strings.Contains(string(state), ") Z ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the tool's child %d still runs", child)
		}
	}
}

// A tool in the kernel's hands cannot be killed. A frozen filesystem makes one.
func TestAToolThatCannotBeKilledIsNotWaitedFor(t *testing.T) {
	m := newMachine(t)
	frozen, _ := m.disk(64 * mib)
	must(t, m.Format(soon(t), frozen, "ext4", FormatOptions{}))
	target := m.target()
	must(t, m.Mount(soon(t), frozen, target, "ext4", nil))
	dir, err := os.Open(target)
	must(t, err)
	const freeze, thaw = 0xc0045877, 0xc0045878 // FIFREEZE, FITHAW of linux/fs.h
	must(t, ioctl(dir, freeze, nil))
	// Whatever becomes of this test, the filesystem does not stay frozen.
	late := time.AfterFunc(time.Minute, func() { command(t, "fsfreeze", "-u", target) })
	stop := func() {
		if dir != nil {
			late.Stop()
			must(t, ioctl(dir, thaw, nil))
			dir.Close()
			dir = nil
		}
	}
	defer stop()
	d, _ := m.disk(64 * mib)
	m.fakeTool("mkfs.ext4", "exec touch "+target+"/file")
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	err = m.Format(ctx, d, "ext4", FormatOptions{})
	took := time.Since(began)
	if !errors.Is(err, ErrStuck) || !errors.Is(err, context.DeadlineExceeded) || took > 10*killGrace {
		t.Errorf("after %s: %v", took, err)
	}
	stop()
	// Now it gets its signal, and lets go of the filesystem.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		err := m.Unmount(target)
		if err == nil {
			return
		}
		if !errors.Is(err, ErrInUse) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestWhatAToolSaysIsBounded(t *testing.T) {
	m := newMachine(t)
	d, _ := m.disk(64 * mib)
	m.fakeTool("mkfs.ext4", "echo the first words; seq 1 200000; echo the last words >&2; exit 3")
	err := m.Format(soon(t), d, "ext4", FormatOptions{})
	if err == nil || len(err.Error()) > 16<<10 || !strings.Contains(err.Error(), "the first words") || !strings.Contains(err.Error(), "the last words") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%d bytes: %.200v", len(err.Error()), err)
	}
}

func TestAToolIsGivenOnlyTheDeviceAndAPlainEnvironment(t *testing.T) {
	m := newMachine(t)
	d, _ := m.disk(64 * mib)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hidden")
	out := filepath.Join(m.dir, "out")
	m.fakeTool("mkfs.ext4", fmt.Sprintf("env >%s; stat -L -c %%t:%%T /proc/self/fd/3 >>%s; ls /proc/self/fd >>%s; exit 1", out, out, out))
	if err := m.Format(soon(t), d, "ext4", FormatOptions{}); err == nil {
		t.Error("a tool that failed is taken for success")
	}
	b, err := os.ReadFile(out)
	must(t, err)
	if text := string(b); strings.Contains(text, "hidden") || !strings.Contains(text, "LC_ALL=C\n") || !strings.Contains(text, fmt.Sprintf("7:%x\n", d.Minor)) {
		t.Error(text)
	}
}

func TestAFormatThatLeavesNothingIsAFailure(t *testing.T) {
	m := newMachine(t)
	d, _ := m.disk(64 * mib)
	m.fakeTool("mkfs.ext4", "exit 0")
	if err := m.Format(soon(t), d, "ext4", FormatOptions{}); err == nil || !strings.Contains(err.Error(), "no filesystem") {
		t.Error(err)
	}
}

func TestADamagedFilesystemIsRefusedAndASmallOneIsRepaired(t *testing.T) {
	m := newMachine(t)
	ctx := soon(t)
	d, _ := m.disk(64 * mib)
	must(t, m.Format(ctx, d, "ext4", FormatOptions{}))
	must(t, m.Check(ctx, d, "ext4"))
	// A wrong count of free blocks is repaired without a question.
	command(t, "debugfs", "-w", "-R", "ssv free_blocks_count 1", d.Path)
	command(t, "debugfs", "-w", "-R", "ssv state 0", d.Path)
	must(t, m.Check(ctx, d, "ext4"))
	// A root directory that is none is not.
	command(t, "debugfs", "-w", "-R", "clri <2>", d.Path)
	command(t, "debugfs", "-w", "-R", "ssv state 0", d.Path)
	err := m.Check(ctx, d, "ext4")
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "exit status 4") || !strings.Contains(err.Error(), "UNEXPECTED INCONSISTENCY") || !strings.Contains(err.Error(), d.Path) {
		t.Error(err)
	}
	blank, _ := m.disk(64 * mib)
	if err := m.Check(ctx, blank, "ext4"); err == nil {
		t.Error("nothing is a good filesystem")
	}
	claim, err := m.Claim(d)
	must(t, err)
	if err := m.Check(ctx, d, "ext4"); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("check of a device that is in use: %v", err)
	}
	must(t, claim.Release())
	if err := m.Check(ctx, blank, "xfs"); err != nil {
		t.Errorf("xfs is checked: %v", err)
	}
	for code, want := range map[string]error{"exit 0": nil, "exit 1": nil, "exit 2": ErrDamaged, "exit 3": ErrDamaged, "exit 4": ErrDamaged, "exit 5": ErrDamaged,
		"exit 8": errNotChecked, "exit 12": ErrDamaged, "exit 32": errNotChecked, "exit 128": errNotChecked, "kill -9 $$": errNotChecked} {
		m.fakeTool("e2fsck", code)
		if err := m.Check(ctx, d, "ext4"); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v", code, err)
		}
	}
}

// may tells whether this process has a capability. Root may lack one on a machine that is itself confined.
func may(t *testing.T, capability int) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	must(t, unix.Capget(&header, &data[0]))
	return data[capability/32].Effective>>(capability%32)&1 == 1
}

func TestGrowthHappensOnlineAndOnlyWhenTheDeviceIsLarger(t *testing.T) {
	for _, fstype := range Filesystems() {
		t.Run(fstype, func(t *testing.T) {
			m := newMachine(t)
			ctx := soon(t)
			d, l := m.disk(512 * mib)
			must(t, m.Format(ctx, d, fstype, FormatOptions{}))
			target := m.target()
			must(t, m.Mount(ctx, d, target, fstype, nil))
			before, err := m.Usage(target)
			must(t, err)
			if grown, err := m.Grow(ctx, d, target, fstype); err != nil || grown {
				t.Errorf("a device of the same size: grown %v, %v", grown, err)
			}
			if _, err := m.Grow(ctx, d, m.target(), fstype); !errors.Is(err, ErrNotMounted) {
				t.Errorf("grown elsewhere: %v", err)
			}
			// The kernel lets nobody grow ext4 without CAP_SYS_RESOURCE, and that is what the user must be told.
			refused := fstype == "ext4" && !may(t, unix.CAP_SYS_RESOURCE)
			for _, size := range []int64{2 * gib, 5*gib + 4096} {
				must(t, os.Truncate(l.image, size))
				l.resized(t)
				grown, err := m.Grow(ctx, d, target, fstype)
				if refused {
					if grown || !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_SYS_RESOURCE") {
						t.Errorf("without the capability: grown %v, %v", grown, err)
					}
					continue
				}
				if err != nil || !grown {
					t.Fatalf("size %d: grown %v, %v", size, grown, err)
				}
				if grown, err := m.Grow(ctx, d, target, fstype); err != nil || grown {
					t.Errorf("size %d, again: grown %v, %v", size, grown, err)
				}
				after, err := m.Usage(target)
				must(t, err)
				if after.Total < size*9/10 || after.Free <= before.Free || after.Total < after.Used+after.Free {
					t.Errorf("size %d: %+v", size, after)
				}
			}
			must(t, m.Unmount(target))
			must(t, m.Check(ctx, d, fstype))
			must(t, m.Mount(ctx, d, target, fstype, []string{"ro"}))
			must(t, os.Truncate(l.image, 6*gib))
			l.resized(t)
			if _, err := m.Grow(ctx, d, target, fstype); !errors.Is(err, unix.EROFS) && !refused {
				t.Errorf("grown read-only: %v", err)
			}
		})
	}
}

func TestASizeIsReadFromASuperblockOnlyIfItMakesSense(t *testing.T) {
	good := at{0x04: uint32(1000), 0x18: uint32(2), 0x38: uint16(0xEF53)}
	if total, bs, err := parseExt(block(1024, good)); err != nil || total != 1000*4096 || bs != 4096 {
		t.Error(total, bs, err)
	}
	if total, _, err := parseExt(block(1024, at{0x04: uint32(1), 0x18: uint32(2), 0x38: uint16(0xEF53), 0x60: uint32(0x80), 0x150: uint32(1)})); err != nil || total != (1<<32+1)*4096 {
		t.Error(total, err)
	}
	for _, bad := range []at{{}, {0x04: uint32(1000), 0x38: uint16(0xEF53), 0x18: uint32(7)}, {0x38: uint16(0xEF53)},
		{0x04: uint32(1), 0x18: uint32(6), 0x38: uint16(0xEF53), 0x60: uint32(0x80), 0x150: ^uint32(0)}} {
		if _, _, err := parseExt(block(1024, bad)); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
	if !slices.Equal([]bool{larger(8192, 4096, 4096), larger(8191, 4096, 4096), larger(4096, 8192, 4096), larger(4096, 0, 0)}, []bool{true, false, false, false}) {
		t.Error("larger")
	}
}
