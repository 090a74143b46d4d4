package main

import (
	"bufio"
	"context"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/blockvol/blockvol/driver"
	"github.com/sirupsen/logrus"
)

// asProgram makes this binary the program instead of its tests.
const asProgram = "BLOCKVOL_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// dockerd 20.10 stops reading a plugin's log for good after one line of more than 64 KiB.
func TestALogThatIsNotReadStopsNothing(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "flood")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s.sock")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd := exec.Command(os.Args[0], "serve", "--socket", socket, "--state", filepath.Join(dir, "state"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), asProgram + "=1"} // no CLUSTER: each request is refused, and logged
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })

	client := http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	post := func(call, body string) string {
		t.Helper()
		res, err := client.Post("http://plugin/VolumeDriver."+call, "", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	long := `{"Name":"` + strings.Repeat("n", 64<<10) + `"}`
	for i := range 3000 { // what the pipe and the backlog hold, and more
		body := `{"Name":"pgdata"}`
		if i%10 == 0 {
			body = long
		}
		if answer := post("Create", body); !strings.Contains(answer, "Err") {
			t.Fatalf("answered %.200s", answer)
		}
	}
	if answer := post("Capabilities", "{}"); !strings.Contains(answer, "global") {
		t.Errorf("after the flood: %s", answer)
	}

	lines, dropped := 0, false
	log := bufio.NewReader(read)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for {
		line, err := log.ReadString('\n')
		if len(line) > 16<<10 {
			t.Fatalf("a line of %d bytes: %.200s", len(line), line)
		}
		if err != nil {
			break
		}
		lines++
		dropped = dropped || strings.Contains(line, "log lines were dropped")
	}
	if lines < 1000 || !dropped {
		t.Errorf("%d lines; that some are missing is told: %v", lines, dropped)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(60 * time.Second):
		t.Error("it does not end")
	}
}

// The setting is for the real EC2. The simulator needs no certificates, and must not be kept from starting by it. This test is not
// parallel, for it sets the environment.
func TestTheSimulatorStartsWithCertificatesOfOnesOwn(t *testing.T) {
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CA_BUNDLE", bundle)
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	log := logrus.New()
	log.SetOutput(io.Discard)
	b, err := openSim(driver.Settings{Backend: "sim", Cluster: "test"}, t.TempDir(), log, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if host, err := b.cloud.Host(t.Context()); err != nil {
		t.Error(err)
	} else if volumes, err := b.cloud.List(t.Context()); err != nil || len(volumes) != 0 {
		t.Errorf("%s sees %v, %v", host.ID, volumes, err)
	}
}
