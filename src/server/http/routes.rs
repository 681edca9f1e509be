//! The paths, and what each answers.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use tokio::task::{JoinError, spawn_blocking};

use super::token::DrainToken;
use super::{Exposition, Probe, Readiness, Told};

/// The format that Prometheus asks for.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Events in an answer, if nothing else is asked for, and at most.
const EVENTS: u32 = 100;
const MAX_EVENTS: u32 = 1000;

/// What the answers are made of.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) probe: Arc<dyn Probe>,
    pub(super) exposition: Exposition,
    /// Without one nobody may drain.
    pub(super) drain_token: Option<Arc<DrainToken>>,
}

pub(super) fn router(sources: Sources) -> Router {
    Router::new()
        .route("/livez", get(alive))
        .route("/health/live", get(alive))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .route("/metrics", get(measured))
        .route("/v1/cluster", get(cluster))
        .route("/v1/events", get(events))
        .route("/health/drain", post(drain))
        .with_state(sources)
}

async fn alive() -> Response {
    line(StatusCode::OK, "ok")
}

async fn ready(State(sources): State<Sources>) -> Response {
    match spawn_blocking(move || sources.probe.readiness()).await {
        Ok(Readiness::Ready) => line(StatusCode::OK, "ok"),
        Ok(Readiness::NotReady(why)) => line(StatusCode::SERVICE_UNAVAILABLE, &why),
        Err(error) => fault(&error),
    }
}

async fn measured(State(sources): State<Sources>) -> Response {
    let observed = move || {
        sources.probe.observe();
        sources.exposition.render()
    };
    match spawn_blocking(observed).await {
        Ok(text) => ([(CONTENT_TYPE, PROMETHEUS_TEXT)], text).into_response(),
        Err(error) => fault(&error),
    }
}

async fn cluster(State(sources): State<Sources>) -> Response {
    told(spawn_blocking(move || sources.probe.cluster()).await)
}

async fn events(State(sources): State<Sources>, RawQuery(query): RawQuery) -> Response {
    let (mut from, mut limit) = (None, EVENTS);
    for pair in query.as_deref().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').map(|(name, number)| (name, number.parse::<u64>())) {
            Some(("from", Ok(number))) => from = Some(number),
            Some(("limit", Ok(number))) => limit = u32::try_from(number).unwrap_or(u32::MAX).min(MAX_EVENTS),
            _ => return line(StatusCode::BAD_REQUEST, "only from=NUMBER and limit=NUMBER can be asked for"),
        }
    }
    told(spawn_blocking(move || sources.probe.events(from, limit)).await)
}

fn told(told: Result<Told, JoinError>) -> Response {
    match told {
        Ok(Told::Json(json)) => {
            ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], json).into_response()
        }
        Ok(Told::NotHere(why)) => line(StatusCode::NOT_FOUND, &why),
        Ok(Told::NotNow(why)) => line(StatusCode::SERVICE_UNAVAILABLE, &why),
        Err(error) => fault(&error),
    }
}

async fn drain(State(sources): State<Sources>, headers: HeaderMap) -> Response {
    let Some(token) = &sources.drain_token else {
        return line(StatusCode::FORBIDDEN, "no token is configured: http.drain_token_file");
    };
    let shown = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    if !shown.is_some_and(|header| token.is_shown_by(header)) {
        tracing::warn!("somebody without the token asked this node to drain");
        let answer = line(StatusCode::UNAUTHORIZED, "the token of http.drain_token_file is needed");
        return ([(WWW_AUTHENTICATE, "Bearer")], answer).into_response();
    }
    tracing::info!("draining: asked over HTTP");
    sources.probe.begin_drain();
    line(StatusCode::OK, "draining")
}

/// The probe panicked, or the process ends.
fn fault(error: &JoinError) -> Response {
    tracing::error!(%error, "answering over HTTP failed");
    line(StatusCode::INTERNAL_SERVER_ERROR, "fault of the server")
}

/// One line, which nobody should keep.
fn line(status: StatusCode, text: &str) -> Response {
    let headers = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (status, headers, format!("{text}\n")).into_response()
}
