// Package e2e tests blockvol from outside: real Docker Engines that the tests start themselves, the managed plugin as config.json and
// the Dockerfile give it, and docker commands as a user types them.
//
// What lives here: the tests, and the harness that they share (engine_test.go, docker_test.go, plugin_test.go, sim_test.go,
// leaks_test.go). What may be called from outside: nothing. What it must never know about: anything of blockvol's code; the tests
// see the docker command, the plugin's state folder, the simulator's HTTP control, and the kernel.
package e2e
