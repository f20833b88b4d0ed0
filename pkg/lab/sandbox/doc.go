// Package sandbox starts a program as a pod's process: inside the pod's network
// namespace, in a mount namespace where /etc/resolv.conf, /etc/hosts and
// /etc/hostname are the pod's own, under the pod's host name, in its cgroup.
//
// [Start] makes a child that is the fairlead binary itself; [Enter] is what that
// child does before it becomes the program. The lab never enters a mount
// namespace itself. It is part of the lab; only the lab and cmd/fairlead import it.
package sandbox
