package webhook

import (
	"context"
	"encoding/json"
	"log/slog"
	"mime"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/lobby"
	"github.com/fairlead-mesh/fairlead/pkg/turns"
)

// Path is where reviews are asked for: Istio's.
const Path = "/validate"

const (
	// maxReview bounds one review: it has an object as it was and as it is to be, each of
	// which the API server bounds to 3 MiB.
	maxReview = 8 << 20
	// atOnce is how many reviews are made at a time, share how many of those one address
	// may have, and maxWait how long others wait for their turn: less than the API server
	// waits for an answer.
	atOnce, share = 16, 8
	maxWait       = 4 * time.Second
)

// Handler answers admission reviews. It keeps no state, and asks nobody.
type Handler struct {
	logger  *slog.Logger
	reviews *prometheus.CounterVec
	// turns are to make reviews, by the address that asks: whoever on the network sends what
	// takes long to look at keeps no API server's reviews back.
	turns *turns.Queue[netip.Addr]
	// large are the turns to read a review that is larger than most.
	large *turns.Queue[netip.Addr]
}

var _ http.Handler = (*Handler)(nil)

// NewHandler makes a Handler.
func NewHandler(registry prometheus.Registerer, logger *slog.Logger) (*Handler, error) {
	// Each connection asks for one at a time.
	small, err := turns.New(turns.Options[netip.Addr]{Most: atOnce, Share: share, Waiting: places, Line: places})
	if err != nil {
		return nil, err
	}
	large, err := turns.New(turns.Options[netip.Addr]{Most: largeAtOnce, Share: largeShare, Waiting: places, Line: places})
	if err != nil {
		return nil, err
	}
	h := &Handler{
		logger: logger, turns: small, large: large,
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fairlead_validations_total", Help: "Objects that the API server asked about, by result: allowed, refused, or error where the question was none.",
		}, []string{"result"}),
	}
	return h, registry.Register(h.reviews)
}

// ServeHTTP answers one review.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if code, text := acceptable(r); code != 0 {
		h.fail(w, code, text)
		return
	}
	body, code, text := h.read(w, r)
	switch {
	case r.Context().Err() != nil:
		h.reviews.WithLabelValues("error").Inc()
		return
	case code != 0:
		h.fail(w, code, text)
		return
	}
	turn, err := take(r, h.turns)
	if err != nil {
		h.fail(w, http.StatusServiceUnavailable, "too many reviews at once")
		return
	}
	defer turn.End()
	review := &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(body, review); err != nil {
		h.fail(w, http.StatusBadRequest, "the body is no AdmissionReview: "+err.Error())
		return
	}
	if review.Request == nil || review.Kind != "AdmissionReview" || review.APIVersion != admissionv1.SchemeGroupVersion.String() {
		h.fail(w, http.StatusBadRequest, "want an AdmissionReview of "+admissionv1.SchemeGroupVersion.String()+" with a request")
		return
	}
	h.answer(w, review.Request)
}

// take waits for a turn of the address that a request comes from.
func take(r *http.Request, of *turns.Queue[netip.Addr]) (*turns.Turn, error) {
	ctx, cancel := context.WithTimeout(r.Context(), maxWait)
	defer cancel()
	return of.Take(ctx, lobby.Address(r.RemoteAddr))
}

func acceptable(r *http.Request) (code int, text string) {
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed, "reviews are asked for by POST"
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return http.StatusUnsupportedMediaType, "a review is application/json"
	}
	return 0, ""
}

func (h *Handler) answer(w http.ResponseWriter, request *admissionv1.AdmissionRequest) {
	response := Review(request)
	result := "allowed"
	if !response.Allowed {
		result = "refused"
		h.logger.Info("refused an object", "kind", request.Kind.Kind, "namespace", request.Namespace, "name", request.Name, "by", request.UserInfo.Username, "why", response.Result.Message)
	}
	h.reviews.WithLabelValues(result).Inc()
	text, err := json.Marshal(&admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{Kind: "AdmissionReview", APIVersion: admissionv1.SchemeGroupVersion.String()}, Response: response,
	})
	if err != nil {
		h.fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text) // who asked has gone
}

func (h *Handler) fail(w http.ResponseWriter, code int, text string) {
	h.reviews.WithLabelValues("error").Inc()
	http.Error(w, text, code)
}
