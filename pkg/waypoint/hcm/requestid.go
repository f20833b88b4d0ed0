package hcm

import (
	"encoding/hex"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// requestID gives a request a random UUID, unless it has one that may stay.
func (m *Manager) requestID(info *streaminfo.Info, r *message.Request, edge bool) {
	if !m.generateRequestID {
		return
	}
	if r.Fields.Get("x-request-id") != "" && (!edge || m.preserveRequestID) {
		return
	}
	r.Fields.Set("x-request-id", newUUID(info.Seed))
}

// newUUID is a version 4 UUID (RFC 9562) from an exchange's own random number. It
// is a name, not a secret.
func newUUID(seed uint64) string {
	var raw [16]byte
	for i, v := range [2]uint64{mix(seed ^ 0x9e3779b97f4a7c15), mix(seed ^ 0xbf58476d1ce4e5b9)} {
		for j := range 8 {
			raw[8*i+j] = byte(v >> (8 * j))
		}
	}
	raw[6] = raw[6]&0x0f | 0x40
	raw[8] = raw[8]&0x3f | 0x80
	var out [36]byte
	hex.Encode(out[0:8], raw[0:4])
	hex.Encode(out[9:13], raw[4:6])
	hex.Encode(out[14:18], raw[6:8])
	hex.Encode(out[19:23], raw[8:10])
	hex.Encode(out[24:36], raw[10:16])
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return string(out[:])
}

// mix is the finaliser of splitmix64.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
