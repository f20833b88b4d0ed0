package envoy

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

// TestRandomRules holds that whatever DestinationRule source lets through becomes
// resources that are valid by their own rules, in both flavours, and clusters that
// a real Envoy takes where there is one.
func TestRandomRules(t *testing.T) {
	base, err := os.ReadFile("testdata/mesh.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64() //nolint:gosec // printed, so that a failure can be repeated
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // as above
	taken, clusters := 0, map[string]*clusterv3.Cluster{}
	for range 400 {
		d := &networkingapi.DestinationRule{}
		fill(random, d.ProtoReflect(), 0)
		d.Host, d.ExportTo, d.WorkloadSelector = "web", nil, nil
		spec, err := protojson.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("%s---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: random, namespace: shop}\nspec: %s\n", base, spec)
		out, err := translate.Translate(source.Parse([]source.File{{Name: "in.yaml", Data: []byte(text)}}, nil), translate.Options{ClusterID: "c1"})
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Model.Objects.DestinationRules) != 2 {
			continue // refused
		}
		taken++
		for _, o := range []Options{{Locality: Locality{Region: "r1", Zone: "z1"}}, {IstioExtensions: true}} {
			r, err := Generate(out.Model, out.Model.Waypoints[0], o)
			if err != nil {
				t.Fatal(err)
			}
			check(t, r, o)
			for name, c := range r.Clusters {
				if !o.IstioExtensions && strings.Contains(name, "web.shop") {
					c.Name = fmt.Sprintf("%d %s", taken, name)
					clusters[c.Name] = c
				}
			}
		}
		if t.Failed() {
			t.Fatalf("the rule is %s", spec)
		}
	}
	if taken < 20 {
		t.Fatalf("only %d of the rules were taken", taken)
	}
	t.Logf("%d rules were taken", taken)
	validate(t, Resources{Clusters: clusters})
}

// fill sets some fields of a message, to values that are often at an edge.
func fill(random *rand.Rand, m protoreflect.Message, depth int) {
	if d, ok := m.Interface().(*durationpb.Duration); ok {
		d.Seconds = int64([]int{0, 1, 30, 3600}[random.IntN(4)])
		d.Nanos = int32([]int{0, 0, 1000, 5e8}[random.IntN(4)])
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if random.IntN(4) > 0 && depth > 0 && fields.Len() > 1 || depth > 5 {
			continue
		}
		switch {
		case fd.IsMap():
			v := m.Mutable(fd).Map()
			if fd.MapValue().Kind() == protoreflect.Uint32Kind {
				v.Set(protoreflect.ValueOfString("r1/*").MapKey(), protoreflect.ValueOfUint32(100))
			} else if fd.MapValue().Kind() == protoreflect.StringKind {
				v.Set(protoreflect.ValueOfString("version").MapKey(), protoreflect.ValueOfString("v1"))
			}
		case fd.IsList():
			l := m.Mutable(fd).List()
			for range random.IntN(3) {
				e := l.NewElement()
				if fd.Message() != nil {
					fill(random, e.Message(), depth+1)
				} else {
					e = scalar(random, fd)
				}
				l.Append(e)
			}
		case fd.Message() != nil:
			fill(random, m.Mutable(fd).Message(), depth+1)
		default:
			m.Set(fd, scalar(random, fd))
		}
	}
}

func scalar(random *rand.Rand, fd protoreflect.FieldDescriptor) protoreflect.Value {
	if name, ok := map[protoreflect.Name]string{"client_certificate": "/etc/c.pem", "private_key": "/etc/k.pem", "ca_certificates": "/etc/ca.pem", "ca_crl": ""}[fd.Name()]; ok {
		return protoreflect.ValueOfString(name)
	}
	n := []int64{0, 1, 2, 50, 80, 100, 503, 65537}[random.IntN(8)]
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n%2 == 0)
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(random.IntN(values.Len())).Number())
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(n)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(n) / 2)
	}
	return protoreflect.ValueOfString([]string{"a", "x-user", "r1", "r2", "a.example", fmt.Sprintf("n%d", n)}[random.IntN(6)])
}
