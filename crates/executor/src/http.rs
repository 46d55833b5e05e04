//! Probes and metrics of an executor process.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::error;

use crate::ExecutorError;

/// Pause between two upkeeps of the metrics: samples of histograms gather in between.
const UPKEEP: std::time::Duration = std::time::Duration::from_secs(5);

/// What the probes tell.
#[derive(Clone, Debug, Default)]
pub struct Health {
    deployed: Arc<AtomicBool>,
}

impl Health {
    /// Tasks run here.
    pub(crate) fn set_deployed(&self, deployed: bool) {
        self.deployed.store(deployed, Ordering::Relaxed);
    }

    fn is_deployed(&self) -> bool {
        self.deployed.load(Ordering::Relaxed)
    }
}

/// Serves `/livez`, `/startupz` (the process is up), `/readyz` (tasks run here) and `/metrics` on `address` until aborted.
///
/// # Errors
/// The address cannot be listened on.
pub async fn serve(address: &str, health: Health) -> Result<JoinHandle<()>, ExecutorError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ExecutorError::Io { what: format!("cannot listen on '{address}' for HTTP"), source })?;
    // In one process with a driver the driver's page shows these metrics too.
    let buckets = PrometheusBuilder::new().set_buckets(&[0.0001, 0.001, 0.01, 0.1, 1.0, 10.0]);
    let prometheus = buckets.ok().and_then(|b| b.install_recorder().ok());
    let upkeep = prometheus.clone();
    let ready = move || async move {
        match health.is_deployed() {
            true => (StatusCode::OK, "ok"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "no tasks are deployed"),
        }
    };
    let page = move || async move { prometheus.map(|p| p.render()).unwrap_or_default() };
    let app = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/startupz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(page));
    if let Some(prometheus) = upkeep {
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                prometheus.run_upkeep();
            }
        });
    }
    Ok(tokio::spawn(async move {
        if let Err(e) = axum::serve(listener, app).await {
            error!(error = %e, "the HTTP service ended");
        }
    }))
}
