package webhook

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"unicode/utf8"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

const groupGateway = "gateway.networking.k8s.io"

const (
	// maxWarnings and maxWarning bound what is said beside: the API server cuts more off.
	maxWarnings, maxWarning = 10, 256
	// maxCauses bounds what is told of a refused object.
	maxCauses = 20
)

// Review tells whether an object may be stored.
func Review(request *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	response := &admissionv1.AdmissionResponse{UID: request.UID, Allowed: true}
	if request.Operation != admissionv1.Create && request.Operation != admissionv1.Update || len(request.Object.Raw) == 0 || keeps(request) {
		return response
	}
	ref := source.Ref{Group: request.Kind.Group, Kind: request.Kind.Kind, Namespace: request.Namespace, Name: request.Name}
	var causes []metav1.StatusCause
	var messages []string
	for _, p := range source.Read(ref, request.Object.Raw).Problems {
		text := p.Message
		if p.Field != "" {
			text = p.Field + ": " + text
		}
		if p.Severity != source.Error || p.Unknown || request.Kind.Group == groupGateway {
			if len(response.Warnings) < maxWarnings {
				response.Warnings = append(response.Warnings, cut(text))
			}
			continue
		}
		if len(causes) == maxCauses {
			messages = append(messages, "and more")
			break
		}
		causes = append(causes, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Field: p.Field, Message: p.Message})
		messages = append(messages, text)
	}
	if len(causes) == 0 {
		return response
	}
	response.Allowed = false
	// Not as "Invalid", of which kubectl does not say who it was that refused.
	response.Result = &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusBadRequest, Reason: metav1.StatusReasonBadRequest,
		Message: ref.String() + " is invalid: " + strings.Join(messages, "; "),
		Details: &metav1.StatusDetails{Name: request.Name, Group: request.Kind.Group, Kind: request.Kind.Kind, Causes: causes},
	}
	return response
}

func cut(text string) string {
	if len(text) <= maxWarning {
		return text
	}
	end := maxWarning - len("...")
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "..."
}

// keeps tells whether an update leaves the object as wrong or right as it was: one that
// is going, or of which what it says is the same. Who takes a finalizer off a wrong
// object, or labels it, is not in the wrong.
func keeps(request *admissionv1.AdmissionRequest) bool {
	if request.Operation != admissionv1.Update {
		return false
	}
	type object struct {
		Metadata struct {
			DeletionTimestamp *metav1.Time `json:"deletionTimestamp"`
		} `json:"metadata"`
		Spec any `json:"spec"`
	}
	var before, after object
	if json.Unmarshal(request.Object.Raw, &after) != nil {
		return false
	}
	if after.Metadata.DeletionTimestamp != nil {
		return true
	}
	return json.Unmarshal(request.OldObject.Raw, &before) == nil && reflect.DeepEqual(before.Spec, after.Spec)
}
