package main

func controlPlane(args []string) error { return nil }
