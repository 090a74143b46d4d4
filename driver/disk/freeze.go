package disk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrFrozen says that somebody else has frozen the filesystem.
var ErrFrozen = errors.New("filesystem is frozen already")

// The guard is this program once more, under another name: a small process that freezes, and thaws when it is told to, when the process that
// started it is gone, or when the time is over, whichever comes first. The kernel knows no freeze that ends with the process that made it, and a
// database must not hang because blockvol was killed. In a managed plugin the kernel kills the guard together with the plugin, whose next start
// thaws (see Thaw); dockerd starts it at once.
const (
	guardName    = "blockvol-freeze"
	guardDir     = 3 // a folder of the filesystem
	guardReports = 4
)

// What a guard reports, each on a line of its own.
const (
	reportFrozen = "frozen" // and for how many milliseconds the freeze itself took
	reportThawed = "thawed" // it was frozen until it was told to thaw, or its parent was gone
	reportLate   = "late"   // it was thawed before, because the time was over
	reportLost   = "lost"   // somebody else has thawed it before
	reportFailed = "failed" // and the error number
)

// Guard does the work of a process that Freeze has started, and returns when that is done; false means that this process is none. Every program
// that calls Freeze asks it first.
func Guard(args []string) bool {
	if len(args) != 2 || args[0] != guardName {
		return false
	}
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGPIPE) // a service that is stopped ends its parent, which is told by the pipe
	reports := os.NewFile(guardReports, "reports")
	most, err := time.ParseDuration(args[1])
	if err != nil || reports == nil {
		return true
	}
	guard(guardDir, os.Stdin, reports, most)
	return true
}

// guard freezes and thaws once.
func guard(dir int, parent io.Reader, reports io.Writer, most time.Duration) {
	told := make(chan struct{})
	go func() {
		_, _ = parent.Read(make([]byte, 1)) // a parent that is gone is as good as a word
		close(told)
	}()
	fail := func(err error) {
		var number unix.Errno
		errors.As(err, &number)
		fmt.Fprintln(reports, reportFailed, int(number))
	}
	// What is written now need not be written while everybody waits.
	if err := unix.Syncfs(dir); err != nil {
		fail(err)
		return
	}
	select {
	case <-told:
		return
	default:
	}
	began := time.Now()
	if err := unix.IoctlSetInt(dir, fifreeze, 0); err != nil {
		fail(err)
		return
	}
	took := time.Since(began)
	fmt.Fprintln(reports, reportFrozen, took.Milliseconds())
	end := reportThawed
	select {
	case <-told:
	case <-time.After(most - took):
		end = reportLate
	}
	err := unix.IoctlSetInt(dir, fithaw, 0)
	for try := 0; err != nil && !errors.Is(err, unix.EINVAL) && try < 10; try++ { // a device that does not answer now may do so in a moment
		time.Sleep(100 * time.Millisecond)
		err = unix.IoctlSetInt(dir, fithaw, 0)
	}
	switch {
	case errors.Is(err, unix.EINVAL):
		fmt.Fprintln(reports, reportLost)
	case err != nil:
		fail(err)
	default:
		fmt.Fprintln(reports, end)
	}
}

// The ioctls of linux/fs.h that x/sys/unix does not name.
const (
	fifreeze = 0xc0045877
	fithaw   = 0xc0045878
)

// Frozen is a filesystem that stands still: what was written is on the device, complete, and everybody who writes waits.
type Frozen struct {
	ends    time.Time
	target  string
	dir     *os.File // of the filesystem, in case that the guard dies
	control *os.File // the guard thaws when it is closed
	from    *os.File // where it reports
	reports *bufio.Reader
	guard   *exec.Cmd

	once sync.Once
	held bool
	err  error
}

// Freeze stops all writes to the filesystem of a device, which is mounted at target, after what was written before has reached the device. It
// thaws when Thaw is called, by itself after most, and when this process dies. Only ext4, xfs and their like can do that: others are
// ErrUnsupported. ErrFrozen means that somebody else has frozen it. When ctx ends first, the filesystem is thawed as soon as the kernel allows it.
func (h *Host) Freeze(ctx context.Context, d Device, target string, most time.Duration) (*Frozen, error) {
	doing := fmt.Sprintf("freeze the filesystem of %s at %s", d, target)
	f, err := startGuard(d, target, most)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", doing, err)
	}
	began := time.Now()
	report := make(chan string, 1)
	go func() { report <- f.report() }()
	select {
	case <-ctx.Done():
		f.control.Close()
		go func() { <-report; f.end() }()
		return nil, fmt.Errorf("%s: %w in time; it is thawed as soon as it does: %w", doing, ErrStuck, context.Cause(ctx))
	case text := <-report:
		word, value, _ := strings.Cut(text, " ")
		number, _ := strconv.Atoi(value)
		if word == reportFrozen {
			f.ends = began.Add(most) // the guard began a little later
			return f, nil
		}
		f.end()
		if word != reportFailed {
			return nil, fmt.Errorf("%s: the process that freezes it ended before it was frozen (%q)", doing, text)
		}
		return nil, fmt.Errorf("%s: %w", doing, freezeError(unix.Errno(number), target))
	}
}

// freezeError adds to an error number what it means here.
func freezeError(number unix.Errno, target string) error {
	switch number {
	case unix.EBUSY:
		return fmt.Errorf("%w, by another program (a backup tool, fsfreeze): wait until that has thawed it, or do it yourself: fsfreeze --unfreeze %s", ErrFrozen, target)
	case unix.EOPNOTSUPP, unix.ENOTTY:
		return fmt.Errorf("%w for that: %w", ErrUnsupported, number)
	case unix.EIO, unix.ENOSPC:
		return fmt.Errorf("what was written cannot be brought to the device: %w", number)
	}
	return number
}

// startGuard starts the process that freezes and thaws. Its end of the pipe tells it of our end, however that comes.
func startGuard(d Device, target string, most time.Duration) (*Frozen, error) {
	dir, err := openMounted(target, d.Major, d.Minor)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	closeAll := func() {
		for _, f := range files {
			f.Close()
		}
	}
	files = append(files, dir)
	stdin, control, err := os.Pipe()
	if err != nil {
		closeAll()
		return nil, err
	}
	files = append(files, stdin, control)
	reports, theirs, err := os.Pipe()
	if err != nil {
		closeAll()
		return nil, err
	}
	files = append(files, reports, theirs)
	cmd := &exec.Cmd{
		// By this name the program is the one that runs, also when its file was replaced since.
		Path: "/proc/self/exe", Args: []string{guardName, most.String()}, Env: []string{}, Dir: "/",
		Stdin: stdin, ExtraFiles: []*os.File{dir, theirs},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}, // no signal for our group reaches it
	}
	if err := cmd.Start(); err != nil {
		closeAll()
		return nil, fmt.Errorf("start the process that freezes it: %w", err)
	}
	stdin.Close()
	theirs.Close()
	return &Frozen{target: target, dir: dir, control: control, from: reports, reports: bufio.NewReader(reports), guard: cmd}, nil
}

// openMounted opens the root of a mount, and proves that it is of the device: without the mount target is a folder of another filesystem, that
// of the host.
func openMounted(target string, major, minor uint32) (*os.File, error) {
	dir, err := openDir(unix.AT_FDCWD, target)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", target, err)
	}
	if err := isOf(int(dir.Fd()), Device{Path: target, Major: major, Minor: minor}); err != nil {
		dir.Close()
		return nil, err
	}
	return dir, nil
}

// Ends is when it thaws by itself.
func (f *Frozen) Ends() time.Time { return f.ends }

// report is the guard's next word; empty if it has ended.
func (f *Frozen) report() string {
	line, _ := f.reports.ReadString('\n')
	return strings.TrimSpace(line)
}

// end waits for the guard, which has nothing left to do, and closes what belongs to it.
func (f *Frozen) end() {
	f.control.Close()
	_ = f.guard.Wait()
	f.from.Close()
	f.dir.Close()
}

// thawPatience is how long Thaw waits for the kernel.
const thawPatience = 10 * time.Second

// Thaw lets the writes go on. held tells whether the filesystem was frozen from the return of Freeze until now; it was not, if the time was over
// or somebody else has thawed it. With an error it is not known whether it is thawed. Later calls answer as the first one.
func (f *Frozen) Thaw() (held bool, err error) {
	f.once.Do(func() {
		f.control.Close()
		report := make(chan string, 1)
		go func() { report <- f.report() }()
		select {
		case <-time.After(thawPatience):
			f.err = fmt.Errorf("thaw the filesystem at %s: %w in time", f.target, ErrStuck)
			go func() { <-report; f.end() }()
			return
		case text := <-report:
			word, value, _ := strings.Cut(text, " ")
			switch number, _ := strconv.Atoi(value); word {
			case reportThawed:
				f.held = true
			case reportLate, reportLost:
			case reportFailed:
				f.err = fmt.Errorf("thaw the filesystem at %s: %w", f.target, unix.Errno(number))
			default: // the guard was killed
				f.held, f.err = thaw(f.dir)
			}
		}
		f.end()
	})
	return f.held, f.err
}

// Thaw lets the writes to a mounted filesystem go on that nobody will thaw, because the process that froze it was killed together with its
// guard. It tells whether it was frozen.
func (h *Host) Thaw(p MountPoint) (was bool, err error) {
	dir, err := openMounted(p.Target, p.Major, p.Minor)
	if err != nil {
		return false, fmt.Errorf("thaw: %w", err)
	}
	defer dir.Close()
	return thaw(dir)
}

func thaw(dir *os.File) (was bool, err error) {
	switch err := unix.IoctlSetInt(int(dir.Fd()), fithaw, 0); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY):
		return false, nil // it is not frozen, or cannot be
	default:
		return false, fmt.Errorf("thaw the filesystem at %s: %w", dir.Name(), err)
	}
}
