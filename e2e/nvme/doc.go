// Package nvme tests blockvol on hardware: a virtual machine with a Debian kernel, in which volumes are NVMe controllers that come and go
// on its PCI bus, with the plugin's own binary and tools, and without udev.
//
// What lives here: the tests, the machine (machine_test.go, image_test.go), QEMU's control protocol (qmp_test.go), the simulator's volumes
// as NVMe controllers (bus_test.go), and in guest the first process of the machine. What may be called from outside: nothing. What it must
// never know about: Docker, and the code of the plugin; of blockvol it uses the simulator only, and runs one test of the driver in the machine.
//
// QEMU emulates the processor, so that it runs where there is no KVM.
package nvme
