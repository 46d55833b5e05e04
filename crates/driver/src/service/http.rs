//! Metrics, probes and the API, on one port.
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::error;

use super::progress::Status;

/// Serves until aborted.
pub(super) fn serve(listener: TcpListener, status: Arc<Status>) -> JoinHandle<()> {
    let app = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/startupz", get(started))
        .route("/metrics", get(metrics))
        .route("/api/v1/jobs", get(jobs))
        .route("/api/v1/jobs/{id}/progress", get(progress))
        .route("/api/v1/jobs/{id}/sources", get(sources))
        .route("/api/v1/jobs/{id}/checkpoints", get(checkpoints))
        .with_state(status);
    tokio::spawn(async move {
        if let Err(e) = axum::serve(listener, app).await {
            error!(error = %e, "the HTTP service ended");
        }
    })
}

/// The driver leads and its tasks run.
async fn ready(State(status): State<Arc<Status>>) -> impl IntoResponse {
    match status.is_running() {
        true => (StatusCode::OK, "ok".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, status.doing()),
    }
}

/// The driver leads.
async fn started(State(status): State<Arc<Status>>) -> impl IntoResponse {
    match status.is_leading() {
        true => (StatusCode::OK, "ok".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, status.doing()),
    }
}

async fn metrics(State(status): State<Arc<Status>>) -> String {
    status.metrics()
}

async fn jobs(State(status): State<Arc<Status>>) -> impl IntoResponse {
    Json(serde_json::json!([{ "id": status.name(), "state": status.doing() }]))
}

/// The job with this id, or 404 with the one that there is.
fn job<T: IntoResponse>(status: &Status, id: &str, answer: impl FnOnce() -> T) -> axum::response::Response {
    if id == status.name() {
        return answer().into_response();
    }
    (StatusCode::NOT_FOUND, format!("there is no job '{id}', only '{}'", status.name())).into_response()
}

async fn progress(State(status): State<Arc<Status>>, Path(id): Path<String>) -> axum::response::Response {
    job(&status, &id, || Json(status.recent()))
}

async fn sources(State(status): State<Arc<Status>>, Path(id): Path<String>) -> axum::response::Response {
    job(&status, &id, || Json(status.sources()))
}

async fn checkpoints(State(status): State<Arc<Status>>, Path(id): Path<String>) -> axum::response::Response {
    job(&status, &id, || Json(status.checkpoints()))
}
