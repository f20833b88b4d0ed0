package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// bookinfoPort is where all parts of Bookinfo listen.
const bookinfoPort = 9080

// details are of the one book there is.
type details struct {
	ID        int    `json:"id"`
	Author    string `json:"author"`
	Year      int    `json:"year"`
	Type      string `json:"type"`
	Pages     int    `json:"pages"`
	Publisher string `json:"publisher"`
	Language  string `json:"language"`
	ISBN10    string `json:"ISBN-10"`
	ISBN13    string `json:"ISBN-13"`
}

type ratings struct {
	ID      int            `json:"id"`
	Ratings map[string]int `json:"ratings"`
}

// rating is a reviewer's as a review shows it; or the error in its place.
type rating struct {
	Stars int    `json:"stars,omitempty"`
	Color string `json:"color,omitempty"`
	Error string `json:"error,omitempty"`
}

type review struct {
	Reviewer string  `json:"reviewer"`
	Text     string  `json:"text"`
	Rating   *rating `json:"rating,omitempty"`
}

type bookReviews struct {
	ID      string   `json:"id"`
	Podname string   `json:"podname"`
	Cluster string   `json:"clustername"`
	Reviews []review `json:"reviews"`
}

func runBookinfo(ctx context.Context, env Env, mux *http.ServeMux) error {
	n, err := httpPort(env, bookinfoPort)
	if err != nil {
		return err
	}
	healthy := func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "healthy"})
	}
	b := &behaviour{}
	outer := http.NewServeMux()
	outer.HandleFunc("GET /health", healthy)
	b.asked(outer)
	outer.Handle("/", b.behaving(mux))
	return serveHTTP(ctx, n, outer)
}

func runDetails(ctx context.Context, env Env) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /details/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.Atoi(r.PathValue("id"))
		if err != nil {
			answer(w, http.StatusBadRequest, map[string]string{"error": "please provide numeric product id"})
			return
		}
		answer(w, http.StatusOK, details{
			ID: id, Author: "William Shakespeare", Year: 1595, Type: "paperback", Pages: 200, Publisher: "PublisherA",
			Language: "English", ISBN10: "1234567890", ISBN13: "123-1234567890",
		})
	})
	return runBookinfo(ctx, env, mux)
}

func runRatings(ctx context.Context, env Env) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ratings/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.Atoi(r.PathValue("id"))
		if err != nil {
			answer(w, http.StatusBadRequest, map[string]string{"error": "please provide numeric product ID"})
			return
		}
		answer(w, http.StatusOK, ratings{ID: id, Ratings: map[string]int{"Reviewer1": 5, "Reviewer2": 4}})
	})
	return runBookinfo(ctx, env, mux)
}

// reviews makes a version of the service; one with a colour asks for ratings.
func reviews(version, colour string) program {
	return func(ctx context.Context, env Env) error {
		client := newClient()
		mux := http.NewServeMux()
		mux.HandleFunc("GET /reviews/{id}", func(w http.ResponseWriter, r *http.Request) {
			out := bookReviews{ID: r.PathValue("id"), Podname: hostname(), Cluster: version, Reviews: []review{
				{Reviewer: "Reviewer1", Text: "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!"},
				{Reviewer: "Reviewer2", Text: "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare."},
			}}
			if colour != "" {
				var got ratings
				err := client.get(r, serviceURL(env, "ratings")+"/ratings/"+r.PathValue("id"), &got)
				for i := range out.Reviews {
					rev := &out.Reviews[i]
					if rev.Rating = (&rating{Stars: got.Ratings[rev.Reviewer], Color: colour}); err != nil {
						rev.Rating = &rating{Error: "Ratings service is currently unavailable"}
					}
				}
				if err != nil {
					fmt.Fprintf(env.Stdout, "ratings: %v\n", err)
				}
			}
			answer(w, http.StatusOK, out)
		})
		return runBookinfo(ctx, env, mux)
	}
}

// serviceURL is where a part of the application is, with Bookinfo's own variables.
func serviceURL(env Env, name string) string {
	variable := map[string]string{"details": "DETAILS", "reviews": "REVIEWS", "ratings": "RATINGS"}[name]
	host, port := env.Getenv(variable+"_HOSTNAME"), env.Getenv(variable+"_SERVICE_PORT")
	if host == "" {
		host = name
	}
	if domain := env.Getenv("SERVICES_DOMAIN"); domain != "" {
		host += "." + domain
	}
	if port == "" {
		port = strconv.Itoa(bookinfoPort)
	}
	return "http://" + host + ":" + port
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that went away has no use for the error
}
