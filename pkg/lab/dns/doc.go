// Package dns answers the pods of a lab's node: service names, headless
// services, pods with a hostname, hosts of ServiceEntries. It forwards nothing:
// a lab has no outside.
//
// It is part of the lab and only the lab imports it.
package dns
