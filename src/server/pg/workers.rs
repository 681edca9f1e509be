//! The threads that serve connections.
//!
//! Each worker is a runtime with one thread, and a connection stays with the worker it began with. What wakes it, a message of
//! its client or the end of its statement, then wakes that thread and no other. The threads of one runtime wake each other at
//! every message, to look for work that is not there; a short statement costs little more than such a wake.
//!
//! A connection's task must not keep its thread long: the others of the same worker wait for it. What may block has threads
//! of the same runtime that may.

use std::future::Future;
use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// The workers of a server.
pub(super) struct Workers(Vec<Worker>);

struct Worker {
    /// Taken when this is dropped.
    runtime: Option<Runtime>,
    /// One more than it serves connections.
    load: Arc<()>,
}

impl Workers {
    /// Starts one for each processor, each of which may have `blocking_threads` beside it.
    ///
    /// # Errors
    /// The system has no threads or files to give.
    pub(super) fn start(blocking_threads: usize) -> io::Result<Workers> {
        let count = thread::available_parallelism().map_or(1, NonZero::get);
        let start = |_| {
            let mut builder = Builder::new_multi_thread();
            builder.enable_all().thread_name("pg-worker").worker_threads(1).max_blocking_threads(blocking_threads);
            Ok(Worker { runtime: Some(builder.build()?), load: Arc::default() })
        };
        (0..count).map(start).collect::<io::Result<_>>().map(Workers)
    }

    /// Serves a connection, on the worker that serves the fewest.
    ///
    /// # Errors
    /// The system does not let the socket go from one thread to another.
    pub(super) fn spawn<F>(
        &self,
        tasks: &mut JoinSet<()>,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stream = stream.into_std()?;
        let least = self.0.iter().min_by_key(|worker| Arc::strong_count(&worker.load));
        let Some((worker, runtime)) = least.and_then(|worker| Some((worker, worker.runtime.as_ref()?))) else {
            return Err(io::Error::other("no thread serves connections"));
        };
        let load = Arc::clone(&worker.load);
        let served = async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream).await,
                Err(error) => tracing::warn!(%error, "an SQL client's socket cannot be waited for"),
            }
            drop(load);
        };
        tasks.spawn_on(served, runtime.handle());
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // What still runs was told to end. Waiting for it would keep the thread that drops this.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tokio::net::TcpListener;
    use tokio::sync::{mpsc, watch};

    use super::*;

    #[tokio::test]
    async fn connections_are_spread_and_stay_where_they_began() {
        let workers = Workers::start(4).unwrap();
        let count = workers.0.len();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (over, until) = watch::channel(false);
        let (tell, mut told) = mpsc::unbounded_channel();
        let (mut tasks, mut clients) = (JoinSet::new(), Vec::new());
        for _ in 0..3 * count {
            clients.push(TcpStream::connect(address).await.unwrap());
            let (stream, _) = listener.accept().await.unwrap();
            let (mut until, tell) = (until.clone(), tell.clone());
            let served = move |stream: TcpStream| async move {
                let began = thread::current().id();
                until.wait_for(|over| *over).await.unwrap();
                tell.send((began, thread::current().id(), stream.peer_addr().is_ok())).unwrap();
            };
            workers.spawn(&mut tasks, stream, served).unwrap();
        }
        over.send_replace(true);
        tasks.join_all().await;
        drop(tell);
        let mut served = HashMap::new();
        while let Some((began, ended, has_peer)) = told.recv().await {
            assert!(began == ended && has_peer);
            *served.entry(began).or_insert(0) += 1;
        }
        assert_eq!(served.into_values().collect::<Vec<_>>(), vec![3; count]);
    }
}
