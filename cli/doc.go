// Package cli is the verbs of `blockvol VERB`: what a person or a script asks of the plugin that runs on this host.
//
// What lives here: finding the plugin's socket, one request over it, and showing the answer. What may be called from outside: Commands,
// DockerPlugin and Execute. What it must never do: change anything itself. The plugin does the work, because it alone knows what is used here
// and has the credentials; a verb is a question to it. Verbs that only look at the cluster can also ask the cloud, where there is no plugin.
package cli
