//! What is measured, as Prometheus takes it.

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// How often samples are put into buckets while nobody asks. Until then each takes memory.
pub(super) const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Where times are cut, in seconds: from a tenth of a sync to what an operator has long noticed.
const SECONDS: &[f64] = &[
    5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];
/// Where counts are cut.
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];
/// Where sizes are cut, in bytes.
const BYTES: &[f64] =
    &[64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 16_777_216.0, 268_435_456.0];

/// Everything that the process measures through the `metrics` crate. There is one per process.
#[derive(Clone)]
pub struct Exposition(PrometheusHandle);

/// Why nothing is measured.
#[derive(Debug, thiserror::Error)]
pub enum ExpositionError {
    /// *Your mistake*: something in the process takes the metrics already.
    #[error("metrics are taken by another recorder of this process")]
    Taken,
    /// The exporter refused its own settings.
    #[error("the metrics exporter does not start: {0}")]
    Exporter(#[from] BuildError),
}

impl Exposition {
    /// Takes the metrics of the process from now on. What took a handle to one before is not heard, so this comes first.
    ///
    /// # Errors
    /// [`ExpositionError::Taken`] the second time.
    pub fn install() -> Result<Exposition, ExpositionError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
            .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), BYTES)?
            .set_buckets(COUNTS)?
            .build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| ExpositionError::Taken)?;
        Ok(Exposition(handle))
    }

    /// One that nothing is told, for tests that are not about what is measured.
    #[cfg(test)]
    pub(super) fn of_nothing() -> Exposition {
        Exposition(PrometheusBuilder::new().build_recorder().handle())
    }

    /// All of it, as text.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Puts samples into buckets.
    pub(super) fn keep_up(&self) {
        self.0.run_upkeep();
    }
}
