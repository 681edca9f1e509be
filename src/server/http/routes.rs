//! The paths, and what each answers.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use tokio::task::{JoinError, spawn_blocking};

use super::{Exposition, Probe, Readiness};

/// The format that Prometheus asks for.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the answers are made of.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) probe: Arc<dyn Probe>,
    pub(super) exposition: Exposition,
}

pub(super) fn router(sources: Sources) -> Router {
    Router::new()
        .route("/livez", get(alive))
        .route("/health/live", get(alive))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .route("/metrics", get(measured))
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
