// SPDX-License-Identifier: AGPL-3.0-or-later
//! The table of servers.

use rusqlite::{OptionalExtension, Row, params};

use super::{Db, Error, Store};

/// A server and how to reach its BMC. The password is sealed.
#[derive(Debug, Clone)]
pub struct ServerRow {
    pub serial: String,
    pub bmc_url: String,
    pub bmc_username: String,
    pub bmc_password: Vec<u8>,
    pub bmc_pin: Option<String>,
    pub bmc_ca_pem: Option<String>,
    /// As set by a user.
    pub bmc_profile: Option<String>,
    /// The BMC is known to report another UUID than the machine.
    pub ignores_uuid: bool,
    /// When the BMC refused these credentials.
    pub login_refused_at: Option<i64>,
    pub created_at: i64,
    pub updated_at: i64,
    pub active_job: Option<String>,
}

const SELECT: &str = "SELECT serial, bmc_url, bmc_username, bmc_password, bmc_pin, bmc_ca_pem, \
    bmc_profile, login_refused_at, created_at, updated_at, (SELECT id FROM jobs WHERE server_serial = serial AND status <> 'complete'), \
    ignores_uuid FROM servers";

fn server(row: &Row) -> rusqlite::Result<ServerRow> {
    Ok(ServerRow {
        serial: row.get(0)?,
        bmc_url: row.get(1)?,
        bmc_username: row.get(2)?,
        bmc_password: row.get(3)?,
        bmc_pin: row.get(4)?,
        bmc_ca_pem: row.get(5)?,
        bmc_profile: row.get(6)?,
        login_refused_at: row.get(7)?,
        created_at: row.get(8)?,
        updated_at: row.get(9)?,
        active_job: row.get(10)?,
        ignores_uuid: row.get(11)?,
    })
}

impl Store {
    pub async fn server(&self, serial: &str) -> Result<ServerRow, Error> {
        self.look_up(|db| {
            db.query_row(&format!("{SELECT} WHERE serial = ?1"), [serial], server)
                .optional()?
                .ok_or_else(|| Error::NotFound { what: "server", id: serial.to_owned() })
        })
        .await
    }

    pub async fn servers(&self) -> Result<Vec<ServerRow>, Error> {
        self.read(|db| {
            let mut query = db.prepare(&format!("{SELECT} ORDER BY serial"))?;
            let rows = query.query_map([], server)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Creates the server, or replaces how its BMC is reached; true if the server is new. A server with an open job
    /// keeps its BMC until the job is complete.
    pub async fn put_server(&self, new: ServerRow) -> Result<bool, Error> {
        self.write(move |db| {
            refuse_while_busy(db, &new.serial)?;
            let known: bool = db.query_row(
                "SELECT EXISTS (SELECT 1 FROM servers WHERE serial = ?1)",
                [&new.serial],
                |row| row.get(0),
            )?;
            db.execute(
                "INSERT INTO servers (serial, bmc_url, bmc_username, bmc_password, bmc_pin,
                 bmc_ca_pem, created_at, updated_at, bmc_profile, ignores_uuid)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT (serial) DO UPDATE SET bmc_url = ?2, bmc_username = ?3,
                 bmc_password = ?4, bmc_pin = ?5, bmc_ca_pem = ?6, updated_at = ?8,
                 bmc_profile = ?9, ignores_uuid = ?10, login_refused_at = NULL",
                params![
                    new.serial,
                    new.bmc_url,
                    new.bmc_username,
                    new.bmc_password,
                    new.bmc_pin,
                    new.bmc_ca_pem,
                    new.created_at,
                    new.updated_at,
                    new.bmc_profile,
                    new.ignores_uuid
                ],
            )?;
            Ok(!known)
        })
        .await
    }

    /// Records that the BMC refused these credentials, unless others were set meanwhile.
    pub async fn login_refused(&self, server: &ServerRow, now: i64) -> Result<(), Error> {
        let (serial, set_at) = (server.serial.clone(), server.updated_at);
        self.write(move |db| {
            db.execute(
                "UPDATE servers SET login_refused_at = ?3 WHERE serial = ?1 AND updated_at = ?2",
                params![serial, set_at, now],
            )?;
            Ok(())
        })
        .await
    }

    pub async fn delete_server(&self, serial: &str) -> Result<(), Error> {
        let serial = serial.to_owned();
        self.write(move |db| {
            refuse_while_busy(db, &serial)?;
            match db.execute("DELETE FROM servers WHERE serial = ?1", [&serial])? {
                0 => Err(Error::NotFound { what: "server", id: serial }),
                _ => Ok(()),
            }
        })
        .await
    }
}

fn refuse_while_busy(db: &Db, serial: &str) -> Result<(), Error> {
    let open: Option<String> = db
        .query_row(
            "SELECT id FROM jobs WHERE server_serial = ?1 AND status <> 'complete'",
            [serial],
            |row| row.get(0),
        )
        .optional()?;
    match open {
        Some(job) => Err(Error::Conflict(format!(
            "server {serial} has the open job {job}; wait for its end or cancel it"
        ))),
        None => Ok(()),
    }
}
