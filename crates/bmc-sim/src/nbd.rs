// SPDX-License-Identifier: AGPL-3.0-or-later
//! The server side of the Network Block Device protocol, as much as a read-only medium needs
//! (NetworkBlockDevice/nbd doc/proto.md: fixed newstyle negotiation, simple replies).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub(crate) const REQUEST_BYTES: usize = 28;
/// The error of a reply if the medium could not be read.
pub(crate) const EIO: u32 = 5;
const EPERM: u32 = 1;
const EINVAL: u32 = 22;

const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// Fixed newstyle, and no zeroes after an export's name.
const HANDSHAKE_FLAGS: u16 = 0b11;
/// Flags are present; read-only.
const EXPORT_FLAGS: u16 = 0b11;

const OPT_ABORT: u32 = 2;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = (1 << 31) + 1;
const INFO_EXPORT: u16 = 0;
/// Options of well-behaved clients are short.
const OPTION_BYTES_MAX: u32 = 4096;
/// The longest read that a client may request without other limits.
const READ_BYTES_MAX: u32 = 32 << 20;

const CMD_READ: u16 = 0;
const CMD_DISCONNECT: u16 = 2;
const CMD_FLUSH: u16 = 3;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Read { cookie: u64, start: u64, length: u32 },
    Flush { cookie: u64 },
    Disconnect,
    Refused { cookie: u64, error: u32 },
}

/// Negotiates the one export, under any name. Returns false if the client did not want it.
pub(crate) async fn negotiate(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    length: u64,
) -> io::Result<bool> {
    stream.write_u64(NBD_MAGIC).await?;
    stream.write_u64(OPTION_MAGIC).await?;
    stream.write_u16(HANDSHAKE_FLAGS).await?;
    let _client_flags = stream.read_u32().await?;
    loop {
        if stream.read_u64().await? != OPTION_MAGIC {
            return Err(invalid("an option without its magic number"));
        }
        let option = stream.read_u32().await?;
        let bytes = stream.read_u32().await?;
        if bytes > OPTION_BYTES_MAX {
            return Err(invalid("an option that is too long"));
        }
        stream.read_exact(&mut vec![0; bytes as usize]).await?;
        match option {
            OPT_GO => {
                let mut export = INFO_EXPORT.to_be_bytes().to_vec();
                export.extend(length.to_be_bytes());
                export.extend(EXPORT_FLAGS.to_be_bytes());
                stream.write_all(&option_reply(option, REP_INFO, &export)).await?;
                stream.write_all(&option_reply(option, REP_ACK, &[])).await?;
                return Ok(true);
            }
            OPT_ABORT => {
                stream.write_all(&option_reply(option, REP_ACK, &[])).await?;
                return Ok(false);
            }
            _ => stream.write_all(&option_reply(option, REP_ERR_UNSUP, &[])).await?,
        }
    }
}

fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut reply = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    reply.extend(option.to_be_bytes());
    reply.extend(kind.to_be_bytes());
    reply.extend((data.len() as u32).to_be_bytes());
    reply.extend(data);
    reply
}

/// Parses a client's request for a medium of `length` bytes.
pub(crate) fn parse(header: &[u8; REQUEST_BYTES], length: u64) -> io::Result<Request> {
    let (magic, rest) = take::<4>(header);
    let (_flags, rest) = take::<2>(rest);
    let (command, rest) = take::<2>(rest);
    let (cookie, rest) = take::<8>(rest);
    let (start, rest) = take::<8>(rest);
    let (bytes, _) = take::<4>(rest);
    if u32::from_be_bytes(magic) != REQUEST_MAGIC {
        return Err(invalid("a request without its magic number"));
    }
    let cookie = u64::from_be_bytes(cookie);
    let (start, bytes) = (u64::from_be_bytes(start), u32::from_be_bytes(bytes));
    let is_inside = start.checked_add(bytes.into()).is_some_and(|end| end <= length);
    Ok(match u16::from_be_bytes(command) {
        CMD_READ if is_inside && (1..=READ_BYTES_MAX).contains(&bytes) => {
            Request::Read { cookie, start, length: bytes }
        }
        CMD_READ => Request::Refused { cookie, error: EINVAL },
        CMD_FLUSH => Request::Flush { cookie },
        CMD_DISCONNECT => Request::Disconnect,
        // All other requests change a medium. The data of a write is not skipped: a client that writes to a read-only
        // export is out of step afterwards, and is disconnected.
        _ => Request::Refused { cookie, error: EPERM },
    })
}

/// The header of a reply. The bytes of a read follow it.
pub(crate) fn reply(cookie: u64, error: u32) -> Vec<u8> {
    let mut reply = REPLY_MAGIC.to_be_bytes().to_vec();
    reply.extend(error.to_be_bytes());
    reply.extend(cookie.to_be_bytes());
    reply
}

fn take<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    let (head, rest) = bytes.split_at(N);
    (std::array::from_fn(|at| head[at]), rest)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(command: u16, start: u64, bytes: u32) -> [u8; REQUEST_BYTES] {
        let mut header = REQUEST_MAGIC.to_be_bytes().to_vec();
        header.extend(0u16.to_be_bytes());
        header.extend(command.to_be_bytes());
        header.extend(7u64.to_be_bytes());
        header.extend(start.to_be_bytes());
        header.extend(bytes.to_be_bytes());
        header.try_into().unwrap()
    }

    #[test]
    fn what_is_read_is_within_the_medium_and_nothing_is_written() {
        let read = |start, length| Request::Read { cookie: 7, start, length };
        let refused = |error| Request::Refused { cookie: 7, error };
        for (command, start, bytes, expected) in [
            (CMD_READ, 0, 1, read(0, 1)),
            (CMD_READ, 2048, 2048, read(2048, 2048)),
            (CMD_READ, 2049, 2048, refused(EINVAL)),
            (CMD_READ, u64::MAX, 1, refused(EINVAL)),
            (CMD_READ, 0, 0, refused(EINVAL)),
            (CMD_FLUSH, 0, 0, Request::Flush { cookie: 7 }),
            (CMD_DISCONNECT, 0, 0, Request::Disconnect),
            (1, 0, 512, refused(EPERM)),
        ] {
            let found = parse(&request(command, start, bytes), 4096).unwrap();
            assert_eq!(found, expected, "command {command} at {start}, {bytes} bytes");
        }
        assert!(parse(&[0; REQUEST_BYTES], 4096).is_err());
    }

    #[tokio::test]
    async fn a_client_gets_the_length_and_read_only() {
        let (mut client, mut server) = tokio::io::duplex(4096);
        let serving = tokio::spawn(async move { negotiate(&mut server, 4096).await });
        let mut greeting = [0; 18];
        client.read_exact(&mut greeting).await.unwrap();
        client.write_u32(0b11).await.unwrap();
        // Structured replies, which are not supported, then the export.
        for (option, data) in [(8, &[][..]), (OPT_GO, &[0, 0, 0, 0, 0, 0])] {
            client.write_u64(OPTION_MAGIC).await.unwrap();
            client.write_u32(option).await.unwrap();
            client.write_u32(data.len() as u32).await.unwrap();
            client.write_all(data).await.unwrap();
        }
        assert!(serving.await.unwrap().unwrap());
        let mut replies = Vec::new();
        client.read_to_end(&mut replies).await.unwrap();
        let expected = [
            option_reply(8, REP_ERR_UNSUP, &[]),
            option_reply(OPT_GO, REP_INFO, &[0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0b11]),
            option_reply(OPT_GO, REP_ACK, &[]),
        ];
        assert_eq!(replies, expected.concat());
    }
}
