// Package deploy holds the Helm chart of Fairlead, so that `fairlead install` renders just
// what `helm install` would.
//
// For pkg/install and tests.
package deploy

import "embed"

// Chart is the chart, under charts/fairlead.
//
//go:embed all:charts/fairlead
var Chart embed.FS
