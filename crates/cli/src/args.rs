// SPDX-License-Identifier: AGPL-3.0-or-later
//! Every command and option.

mod artifact;
mod checked;
mod job;
mod lab;
mod output;
mod recipe;
mod server;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub use crate::artifacts::Kind;
pub use artifact::Uploads;
pub use job::{ListJobs, Which};
pub use lab::{Lab, LabUp};
pub use output::Output;
pub use recipe::RecipeCommand;
pub use server::{FormatOrFile, PROFILE_BY_BMC, Power, SetServer};

/// Shoal: provision bare metal over Redfish.
#[derive(Debug, Parser)]
#[command(
    name = "shoal",
    version,
    about,
    after_help = "Exit status:
    0  done
    1  the controller refused, or something failed here
    2  wrong usage
    3  the controller cannot be reached
    4  a job or a firmware update ended as failed, or a plan, a probe or `recipe validate` found problems
  141  the reader of the output ended before it"
)]
pub struct Args {
    #[command(flatten)]
    pub connection: Connection,
    #[command(subcommand)]
    pub command: Command,
}

/// Which controller, and who is asking.
#[derive(Debug, clap::Args)]
pub struct Connection {
    /// The controller's URL.
    #[arg(long, global = true, env = "SHOAL_CONTROLLER", default_value = "https://127.0.0.1:8443")]
    pub controller: String,
    /// File with the token: one that `token create` showed, or `admin-token` in the controller's data
    /// directory.
    #[arg(long, global = true, env = "SHOAL_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// File with a client's certificate (PEM) in place of a token, where the controller takes such.
    #[arg(long, global = true, env = "SHOAL_CLIENT_CERT", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// File with the key (PEM) of the client's certificate.
    #[arg(long, global = true, env = "SHOAL_CLIENT_KEY")]
    pub client_key: Option<PathBuf>,
    /// File with the CA to trust (`tls/ca.pem` in the controller's data directory); the system's
    /// authorities where it is absent.
    #[arg(long, global = true, env = "SHOAL_CA")]
    pub ca: Option<PathBuf>,
}

/// How what the controller answers is shown.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Format {
    /// Tables for people, or the API's JSON for scripts.
    #[arg(
        long,
        global = true,
        id = "format",
        value_name = "FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub output: Output,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Servers and how their BMCs are reached.
    Server {
        #[command(flatten)]
        format: FormatOrFile,
        #[command(subcommand)]
        command: Server,
    },
    /// Jobs: one recipe carried out once on one server.
    Job {
        #[command(flatten)]
        format: Format,
        #[command(subcommand)]
        command: Job,
    },
    /// OS images in the controller's registry.
    Artifact {
        #[command(flatten)]
        format: Format,
        #[command(subcommand)]
        command: Artifact,
    },
    /// Tokens for people and programs, each with a role.
    Token {
        #[command(flatten)]
        format: Format,
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Who changed what.
    Audit {
        #[command(flatten)]
        format: Format,
        #[command(subcommand)]
        command: Audit,
    },
    /// Recipes: what to install.
    Recipe {
        #[command(flatten)]
        format: Format,
        #[command(subcommand)]
        command: RecipeCommand,
    },
    /// Task media.
    #[command(subcommand)]
    Iso(Iso),
    /// A virtual machine with a BMC, to play with.
    #[command(subcommand)]
    Lab(Lab),
}

#[derive(Debug, Subcommand)]
pub enum Server {
    /// Add a server, or change how it is reached.
    Set(SetServer),
    /// All servers.
    List,
    /// How a server is reached, and whether a job is active on it.
    Show {
        /// Serial number of the server, as `server list` shows it.
        serial: String,
    },
    /// Forget a server; its jobs stay in the list. Refused while a job is active on it.
    Delete {
        /// Serial number of the server.
        serial: String,
    },
    /// Switch a server on or off, or start it anew; refused while a job is active on it.
    Power {
        /// Serial number of the server.
        serial: String,
        #[arg(value_enum)]
        power: Power,
    },
    /// Say where the next boot is from, and only that one; refused while a job is active.
    BootOnce {
        /// Serial number of the server.
        serial: String,
        #[arg(value_enum)]
        from: BootFrom,
    },
    /// Firmware, by the BMC.
    #[command(subcommand)]
    Firmware(Firmware),
    /// Look at the BMC: power, boot override, slots, what would stand in a job's way. A small medium
    /// is inserted and ejected again to see whether the BMC can read from the controller. Exit status 4 if
    /// a job would fail.
    Probe {
        /// Serial number of the server.
        serial: String,
        /// Insert nothing.
        #[arg(long)]
        no_insert: bool,
    },
    /// Record what the BMC shows, for a bug report: `--output FILE`. Only reads. Numbers, addresses and
    /// names are replaced; look through the file before you pass it on.
    Capture {
        /// Serial number of the server.
        serial: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum Firmware {
    /// What the BMC says is installed.
    List {
        /// Serial number of the server.
        serial: String,
    },
    /// Install an image and follow it to its end; exit status 4 unless the BMC shows it then. Refused
    /// while a job is active.
    Update {
        /// Serial number of the server.
        serial: String,
        /// A file, or REPOSITORY:TAG of an artifact in the controller's registry.
        image: String,
        /// What is updated: a name or path that `firmware list` shows, or another path on the BMC.
        /// Can be given several times; without any, the BMC goes by the image.
        #[arg(long = "target", value_name = "NAME|PATH")]
        targets: Vec<String>,
        /// The version that must be installed afterwards; without it, some version must have changed.
        #[arg(long = "expect-version", value_name = "VERSION")]
        version: Option<String>,
    },
    /// The last update: how it goes, or how it ended.
    Status {
        /// Serial number of the server.
        serial: String,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum BootFrom {
    /// The virtual CD.
    Cd,
    /// The machine's own order.
    None,
}

#[derive(Debug, Subcommand)]
pub enum Job {
    /// Provision a server.
    Create {
        /// Serial number of the server.
        #[arg(long)]
        server: String,
        /// The recipe, a JSON or YAML file; `-` reads standard input.
        #[arg(long)]
        recipe: PathBuf,
        /// A repetition with the same key creates no second job.
        #[arg(long)]
        idempotency_key: Option<String>,
        /// Tell the job's story until it is complete.
        #[arg(long)]
        watch: bool,
        /// Only check what a job would meet: BMC, media, artifact. Creates none; exit status 4 if it
        /// would fail.
        #[arg(long, conflicts_with_all = ["watch", "idempotency_key"])]
        plan: bool,
        /// Where every slot holds media of others: eject what is in the way.
        #[arg(long)]
        eject_foreign: bool,
    },
    /// Jobs, newest first.
    List(ListJobs),
    /// What is known of a job.
    Show(Which),
    /// Tell the job's story until it is complete; exit status 4 if it failed.
    Watch(Which),
    /// Everything that is known of a job, in one tar archive without secrets: for a bug report.
    Evidence {
        #[command(flatten)]
        which: Which,
        /// Where to write it; evidence-ID.tar if left out.
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// End the job and put the machine back.
    Cancel(Which),
}

#[derive(Debug, Subcommand)]
pub enum Artifact {
    /// Upload an OS image: a tar file of a root filesystem, a WIM, an ISO or a whole disk, plain or
    /// compressed with gzip or zstd. Goes on where a former try broke off.
    Push {
        /// REPOSITORY:TAG, such as os-images/debian:13.
        name: String,
        /// The file to upload.
        file: PathBuf,
        /// What the file is; needed for a disk, whose bytes do not tell.
        #[arg(long, value_enum)]
        kind: Option<Kind>,
    },
    /// What the registry holds.
    List,
    /// Remove a tag. What it named goes with a later collection.
    Delete {
        /// REPOSITORY:TAG.
        name: String,
    },
    /// Remove what nothing refers to any more: marked first, gone a day later.
    Gc {
        /// Remove all open uploads too, unless bytes come for them right now.
        #[arg(long)]
        uploads: bool,
    },
    /// Uploads that are not finished.
    #[command(subcommand)]
    Uploads(Uploads),
    /// Read everything again and set aside what has rotted; exit status 1 if something has.
    Scrub,
    /// Write artifacts into one file for a site without a network.
    Export {
        /// The file to write.
        bundle: PathBuf,
        /// REPOSITORY:TAG of each artifact; all tags without any.
        names: Vec<String>,
        /// The maintenance OS too.
        #[arg(long)]
        maintenance_iso: bool,
    },
    /// Take in a file that `export` wrote.
    Import {
        /// The file to take in.
        bundle: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; it is shown once.
    Create {
        /// What the token may do.
        #[arg(long, value_enum)]
        role: TokenRole,
        /// Whose it is, in lists and in the audit log.
        #[arg(long)]
        name: String,
        /// How long it lives.
        #[arg(long, default_value_t = api::access::TOKEN_DAYS)]
        days: i64,
        /// Of a publisher: repositories below this may be pulled; * for all. Can be given several times.
        #[arg(long, value_name = "PREFIX")]
        pull: Vec<String>,
        /// Of a publisher: repositories below this may be pushed and pulled. Can be given several times.
        #[arg(long = "prefix", value_name = "PREFIX")]
        push: Vec<String>,
    },
    /// All tokens, newest first.
    List,
    /// End a token at once.
    Revoke {
        /// As `token list` shows it, or its beginning where only one id begins so.
        id: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum TokenRole {
    /// Everything.
    Admin,
    /// Jobs, and what a server's BMC does.
    Operator,
    /// Looking.
    Reader,
    /// Pushing to the registry, below prefixes.
    Publisher,
}

#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Entries, oldest first.
    List {
        /// Only entries after this one.
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// So many entries at most.
        #[arg(long, default_value_t = 100)]
        limit: u64,
    },
    /// Compute the chain of hashes again; exit status 1 if an entry was changed, taken out or put in.
    Verify {
        /// What an earlier `verify` told to note: shows that the log was not cut off or written anew
        /// since. Can be given several times.
        #[arg(long, value_name = "SEQ:HASH")]
        expect: Vec<AuditHead>,
    },
}

/// An entry of the audit log, and its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditHead {
    pub seq: u64,
    pub hash: String,
}

impl std::str::FromStr for AuditHead {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<AuditHead, &'static str> {
        let parsed = text.split_once(':').and_then(|(seq, hash)| {
            let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
            let seq = seq.parse().ok().filter(|_| is_hash)?;
            Some(AuditHead { seq, hash: hash.to_lowercase() })
        });
        parsed.ok_or("write SEQ:HASH, as `shoal audit verify` shows it")
    }
}

#[derive(Debug, Subcommand)]
pub enum Iso {
    /// Write the task medium of a recipe, without a controller.
    Build {
        /// The recipe, a JSON or YAML file.
        #[arg(long)]
        recipe: PathBuf,
        /// File to write.
        #[arg(long = "output", id = "iso_file", value_name = "FILE")]
        file: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_version_is_the_programs_own() {
        let line = Args::try_parse_from(["shoal", "-V"]).unwrap_err().to_string();
        assert_eq!(line, format!("shoal {}\n", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn every_command_and_argument_says_what_it_is() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            for argument in command.get_arguments() {
                let is_told =
                    argument.get_help().is_some() || !argument.get_possible_values().is_empty();
                assert!(is_told, "{} {} has no help", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Args::command());
    }

    #[test]
    fn output_is_a_format_or_the_task_mediums_file() {
        let parse = |line: &str| Args::try_parse_from(line.split(' ')).unwrap().command;
        let iso = parse("shoal iso build --recipe r --output f");
        let Command::Iso(Iso::Build { recipe, file }) = iso else { panic!("{iso:?}") };
        assert_eq!((recipe, file), (PathBuf::from("r"), PathBuf::from("f")));
        for line in ["shoal job list --output json", "shoal job --output json list"] {
            let job = parse(line);
            let Command::Job { format, .. } = job else { panic!("{job:?}") };
            assert_eq!(format.output, Output::Json);
        }
    }

    #[test]
    fn a_bundle_is_named_beside_the_output_format() {
        let line = ["shoal", "artifact", "export", "x.tar", "a:1", "--output", "json"];
        let command = Args::parse_from(line).command;
        let Command::Artifact { format, command } = command else { panic!("{command:?}") };
        assert_eq!(format.output, Output::Json);
        let Artifact::Export { bundle, names, maintenance_iso } = command else {
            panic!("another command");
        };
        assert_eq!((bundle, names, maintenance_iso), ("x.tar".into(), vec!["a:1".into()], false));
    }
}
