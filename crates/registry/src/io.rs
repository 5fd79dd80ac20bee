// SPDX-License-Identifier: AGPL-3.0-or-later
//! The registry's own threads. Disk access, hashing and queries run on them and never on the threads that serve the
//! API, however many pulls wait. The exception is a read that the page cache can satisfy at once (`http/send.rs`).

use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::buffers::Buffers;

/// Further work waits for a free thread. A disk serves no more requests at once.
const THREADS_MAX: usize = 32;

/// A handle to the threads. Cheap to clone.
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

    /// Runs blocking work. The work runs to its end even if the returned handle is dropped.
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
            // Dropping a runtime waits for its threads, and blocking is not allowed in async code.
            runtime.shutdown_background();
        }
    }
}
