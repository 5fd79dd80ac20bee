// SPDX-License-Identifier: AGPL-3.0-or-later
//! The hello: the first message of a boot, which opens its session.

use api::node::{Dmi, Hello};

use crate::controller::{Answer, Controller};
use crate::{reach, session};

/// Sends the hello until there is a response. A repeated hello is the same message and gets the same response.
pub fn send(controller: &Controller, boot_id: &str, dmi: &Dmi, session: &str) -> Answer {
    let hello = Hello {
        boot_id: boot_id.to_owned(),
        dmi: dmi.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        session_sha256: session::commitment(session),
    };
    let mut watch = reach::Watch::new();
    controller.tell_watched("hello", &hello, |signal| watch.unanswered(signal))
}
