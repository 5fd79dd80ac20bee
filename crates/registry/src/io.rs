// SPDX-License-Identifier: AGPL-3.0-or-later
//! The registry's own threads: what may wait for the disk, and hashes and queries, runs there and never
//! on the threads that answer the API, however many pulls wait. A read that the page cache answers at
//! once does not (`http/send.rs`).

use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::buffers::Buffers;

/// More wait for one of these to be free. A disk serves no more at once.
const THREADS_MAX: usize = 32;

/// A handle on the threads; cheap to clone.
#[derive(Clone)]
pub struct Io {
    threads: Arc<Threads>,
    pub(crate) buffers: Arc<Buffers>,
}

struct Threads(Option<Runtime>);

impl Io {
    pub fn start() -> std::io::Result<Io> {
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(THREADS_MAX)
            .thread_name("registry")
            .build()?;
        Ok(Io { threads: Arc::new(Threads(Some(runtime))), buffers: Arc::default() })
    }

    /// Runs blocking work. It goes on to its end also where nobody waits for it any more.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let runtime = self.threads.0.as_ref().expect("only drop takes the runtime");
        runtime.spawn_blocking(work)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Dropping a runtime waits for its threads, which async code must not.
            runtime.shutdown_background();
        }
    }
}
