//! A client of ours that gathers: what its callers put while requests are out shares the next one.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc, oneshot};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::servers::kv::kv_client::KvClient;
use crate::servers::kv::{PutManyRequest, PutOutcome, PutRequest};

/// Puts that wait for a request.
const MAX_WAITING: usize = 1024;
/// Puts in a request.
const MAX_PUTS: usize = 256;
/// Requests that are out: while one is on its way through the log, the next is gathered and sent.
const MAX_REQUESTS: usize = 2;

type Waiting = (PutRequest, oneshot::Sender<PutOutcome>);

/// Cheap to clone; clones share their requests.
#[derive(Clone)]
pub struct Batching(mpsc::Sender<Waiting>);

impl Batching {
    /// Over a connection.
    pub fn new(client: KvClient<Channel>) -> Batching {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..MAX_REQUESTS {
            tokio::spawn(send(client.clone(), Arc::clone(&receiver)));
        }
        Batching(sender)
    }

    /// Sets a key.
    ///
    /// # Errors
    /// What the server says of this put, or of the request.
    pub async fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<(), Status> {
        let (answer, answered) = oneshot::channel();
        let put = PutRequest { key, value, client: 0, sequence: 0 };
        self.0.send((put, answer)).await.map_err(|_| Status::cancelled("the client was closed"))?;
        let outcome = answered.await.map_err(|_| Status::unknown("the request failed"))?;
        match outcome.code {
            0 => Ok(()),
            code => Err(Status::new(Code::from(code), outcome.message)),
        }
    }
}

/// One request after the other, until the client is dropped. Whoever waits for a request that fails is dropped, and so
/// told.
async fn send(mut client: KvClient<Channel>, receiver: Arc<Mutex<mpsc::Receiver<Waiting>>>) {
    let mut waiting = Vec::with_capacity(MAX_PUTS);
    while receiver.lock().await.recv_many(&mut waiting, MAX_PUTS).await > 0 {
        let (puts, answers): (_, Vec<_>) = waiting.drain(..).unzip();
        let Ok(response) = client.put_many(PutManyRequest { puts }).await else { continue };
        for (answer, outcome) in answers.into_iter().zip(response.into_inner().outcomes) {
            // Whoever asked may have gone.
            let _ = answer.send(outcome);
        }
    }
}
