package nvme

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// modules are what the network, the filesystems and the simulator inside the machine need of Debian's kernel, in the order of loading. NVMe, PCI hot-plug and ext4 are built in.
var modules = []string{
	"drivers/virtio/virtio_ring.ko", "drivers/virtio/virtio.ko", "drivers/virtio/virtio_pci_modern_dev.ko", "drivers/virtio/virtio_pci_legacy_dev.ko",
	"drivers/virtio/virtio_pci.ko", "net/core/failover.ko", "drivers/net/net_failover.ko", "drivers/net/virtio_net.ko", "lib/libcrc32c.ko", "fs/xfs/xfs.ko",
	"drivers/block/loop.ko",
}

// kernel is the one file of the unpacked kernel package that matches.
func kernel(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(buildDir, "kernel", pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s/kernel/%s: %v, %v; make deps unpacks the kernel", buildDir, pattern, found, err)
	}
	return found[0]
}

// makeImage writes the machine's initramfs: the plugin's root filesystem, busybox, the modules, the first process, and the driver's own tests.
func makeImage(t *testing.T, env []string) string {
	t.Helper()
	dir := t.TempDir()
	root, image := filepath.Join(dir, "root"), filepath.Join(dir, "initramfs")
	environment, err := json.Marshal(env)
	if err != nil {
		t.Fatal(err)
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	run(t, "cp", "-a", filepath.Join(buildDir, "plugin", "rootfs"), root)
	run(t, "rm", "-rf", filepath.Join(root, "dev")) // What an engine's export leaves there is no device.
	for _, build := range [][]string{{"build", "-o", filepath.Join(root, "guest"), "./guest"}, {"test", "-c", "-o", filepath.Join(root, "driver.test"), "../../driver"}} {
		cmd := exec.Command("go", append([]string{build[0], "-buildvcs=false", "-trimpath", "-ldflags", "-s -w"}, build[1:]...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	order := ""
	err = errors.Join(os.MkdirAll(filepath.Join(root, "bin"), 0o755), os.Mkdir(filepath.Join(root, "modules"), 0o755),
		os.WriteFile(filepath.Join(root, "env"), environment, 0o600))
	for _, m := range modules {
		run(t, "cp", kernel(t, "lib/modules/*/kernel/"+m), filepath.Join(root, "modules"))
		order += filepath.Base(m) + "\n"
	}
	err = errors.Join(err, os.WriteFile(filepath.Join(root, "modules", "order"), []byte(order), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	run(t, "cp", "-L", busybox, filepath.Join(root, "bin", "busybox"))
	run(t, "sh", "-c", fmt.Sprintf("cd %q && find . | cpio --quiet -o -H newc >%q", root, image))
	return image
}

func run(t *testing.T, name string, arg ...string) {
	t.Helper()
	if out, err := exec.Command(name, arg...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, arg, err, out)
	}
}
