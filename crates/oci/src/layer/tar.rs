// SPDX-License-Identifier: AGPL-3.0-or-later
//! A strict reader of tar archives: ustar, POSIX pax and GNU, as a stream.
//!
//! Written here for two reasons. Two parsers that read the same archive differently can be attacked
//! (RUSTSEC-2025-0110 and similar). And extended headers carry binary values (`security.capability`), which the `tar`
//! crate splits at line breaks. Ambiguous archives are refused: a member has exactly one size, and links and
//! directories have no data. Two extensions of GNU tar are read as GNU tar reads them: a directory of an incremental
//! archive (`D`) has a list of names as data, which is skipped, and a volume label (`V`) is not a file.

use std::io::{self, BufRead};

use super::error::TarError;
use super::pax::{Pax, decimal};

const BLOCK: usize = 512;
/// Largest extended header. An extended attribute has at most 64 KiB; a member has a few of them, or a long sparse
/// map.
const EXTENDED_BYTES_MAX: u64 = 4 << 20;
/// Largest size that fits a header's octal field. For a larger file only the extended header's size counts.
const OCTAL_SIZE_MAX: u64 = 0o77_777_777_777;
const SPARSE_REGIONS_MAX: usize = 1 << 20;
/// Largest `off_t`: no file is larger, and the sum of two such numbers does not overflow.
const SIZE_MAX: u64 = i64::MAX as u64;
/// A directory of `tar --listed-incremental` (GNU tar manual, appendix D.5, "Dumpdir").
const DUMP_DIRECTORY: u8 = b'D';

/// The type of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Hardlink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One member's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits, setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Size of the extracted file; for a sparse file, including its holes.
    pub size: u64,
    pub link: Vec<u8>,
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// In the long text form of acl(5).
    pub acl_access: Option<Vec<u8>>,
    pub acl_default: Option<Vec<u8>>,
    /// The regions of a sparse file that the data fills: offset and length.
    pub sparse: Option<Vec<(u64, u64)>>,
}

/// An archive that is being read. After [`Archive::next_member`], the member's data is read with [`Archive::data`].
/// Unread data is skipped.
pub struct Archive<R> {
    reader: R,
    data_left: u64,
    padding: u64,
    global: Pax,
    is_at_end: bool,
}

impl<R: BufRead> Archive<R> {
    pub fn new(reader: R) -> Archive<R> {
        Archive { reader, data_left: 0, padding: 0, global: Pax::default(), is_at_end: false }
    }

    /// The next member. `None` after the last, once the whole stream was read.
    pub fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        if self.is_at_end {
            return Ok(None);
        }
        self.skip(self.data_left + self.padding)?;
        let mut extended = Extended::default();
        loop {
            let Some(header) = self.header()? else {
                self.is_at_end = true;
                return match extended.is_empty() {
                    true => Ok(None),
                    false => Err(TarError::Malformed("the end: a member is announced")),
                };
            };
            match header.type_flag() {
                b'x' => extended.set_pax(self.text(&header)?)?,
                b'g' => self.global = Pax::parse(&self.text(&header)?)?,
                b'L' => extended.long_path = Some(until_zero(&self.text(&header)?).to_vec()),
                b'K' => extended.long_link = Some(until_zero(&self.text(&header)?).to_vec()),
                b'V' => {
                    let size = header.number(124..136)?;
                    self.skip(size)?;
                    self.skip(padding(size))?;
                }
                _ => return self.member(&header, extended).map(Some),
            }
        }
    }

    /// The next available bytes of the member's data; empty at its end. Call [`Archive::consume`] with the number of
    /// bytes used.
    pub fn data(&mut self) -> Result<&[u8], TarError> {
        if self.data_left == 0 {
            return Ok(&[]);
        }
        let bytes = self.reader.fill_buf()?;
        if bytes.is_empty() {
            return Err(TarError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        let length = bytes.len().min(usize::try_from(self.data_left).unwrap_or(usize::MAX));
        Ok(&bytes[..length])
    }

    pub fn consume(&mut self, length: usize) {
        self.reader.consume(length);
        self.data_left -= length as u64;
    }

    fn member(&mut self, header: &Header, extended: Extended) -> Result<Member, TarError> {
        let Extended { pax, long_path, long_link } = extended;
        let pax = pax.unwrap_or_default();
        let kind = header.kind()?;
        let stored = self.stored_size(header, &pax)?;
        let is_dump = header.type_flag() == DUMP_DIRECTORY;
        if kind != Kind::File && stored != 0 && !is_dump {
            return Err(TarError::Refused(format!("a {kind:?} with data")));
        }
        (self.data_left, self.padding) = match is_dump {
            true => (0, stored.next_multiple_of(BLOCK as u64)),
            false => (stored, padding(stored)),
        };
        let (mut size, mut sparse) = (stored, None);
        if header.type_flag() == b'S' {
            (size, sparse) = self.gnu_sparse(header)?;
        } else if kind == Kind::File {
            (size, sparse) = self.pax_sparse(&pax, stored)?;
        }
        if let Some(regions) = &sparse {
            check_regions(regions, size, self.data_left)?;
        }
        let text = |key: &str| pax.get(key).or_else(|| self.global.get(key));
        let path = pax.get("GNU.sparse.name").or_else(|| text("path")).map(<[u8]>::to_vec);
        let small = |value: u64| u32::try_from(value).map_err(|_| TarError::Malformed("a number"));
        let id = |key: &'static str, field| match pax.number(key)? {
            Some(id) => small(id),
            None => small(header.number(field)?),
        };
        let mut xattrs = Vec::new();
        for (key, value) in pax.iter() {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                xattrs.push((name.to_vec(), value.to_vec()));
            } else if key == b"RHT.security.selinux" {
                xattrs.push((b"security.selinux".to_vec(), value.to_vec()));
            }
        }
        Ok(Member {
            path: path.or(long_path).unwrap_or_else(|| header.path()),
            kind,
            mode: small(header.number(100..108)?)? & 0o7777,
            uid: id("uid", 108..116)?,
            gid: id("gid", 116..124)?,
            mtime: match pax.time("mtime")? {
                Some(time) => time,
                None => (header.signed(136..148)?, 0),
            },
            size,
            link: text("linkpath")
                .map(<[u8]>::to_vec)
                .or(long_link)
                .unwrap_or_else(|| until_zero(&header.0[157..257]).to_vec()),
            device: match kind {
                Kind::CharDevice | Kind::BlockDevice => {
                    (small(header.number(329..337)?)?, small(header.number(337..345)?)?)
                }
                _ => (0, 0),
            },
            xattrs,
            acl_access: pax.get("SCHILY.acl.access").map(<[u8]>::to_vec),
            acl_default: pax.get("SCHILY.acl.default").map(<[u8]>::to_vec),
            sparse,
        })
    }

    /// How many bytes follow the header. Programs disagree about an archive with two different sizes
    /// (RUSTSEC-2026-0068).
    fn stored_size(&self, header: &Header, pax: &Pax) -> Result<u64, TarError> {
        if self.global.get("size").is_some() {
            return Err(TarError::Refused("one size for all members".into()));
        }
        let plain = header.number(124..136)?;
        match pax.number("size")? {
            None => Ok(plain),
            Some(size) if size > SIZE_MAX => Err(TarError::Malformed("a size")),
            Some(size) if size == plain || plain == 0 || size > OCTAL_SIZE_MAX => Ok(size),
            Some(size) => {
                Err(TarError::Refused(format!("a member with two sizes, {plain} and {size}")))
            }
        }
    }

    /// The old GNU format: type `S`, regions in the header and in blocks after it.
    fn gnu_sparse(&mut self, header: &Header) -> Result<Sparse, TarError> {
        let mut regions = Vec::new();
        let mut add = |fields: &[u8]| -> Result<(), TarError> {
            for region in fields.chunks_exact(24).filter(|region| region[0] != 0) {
                regions.push((number(&region[..12])?, number(&region[12..])?));
                if regions.len() > SPARSE_REGIONS_MAX {
                    return Err(TarError::Refused("a sparse file with too many regions".into()));
                }
            }
            Ok(())
        };
        add(&header.0[386..482])?;
        let mut goes_on = header.0[482] != 0;
        while goes_on {
            // These blocks come before the data and do not count as data.
            let mut block = [0; BLOCK];
            io::Read::read_exact(&mut self.reader, &mut block)?;
            add(&block[..504])?;
            goes_on = block[504] != 0;
        }
        Ok((header.number(483..495)?, Some(regions)))
    }

    /// The three GNU formats of sparse files in pax archives (GNU tar manual, appendix D.3).
    fn pax_sparse(&mut self, pax: &Pax, stored: u64) -> Result<Sparse, TarError> {
        let odd = TarError::Malformed("a sparse map");
        let size = match pax.number("GNU.sparse.realsize")? {
            Some(size) => Some(size),
            None => pax.number("GNU.sparse.size")?,
        };
        if pax.get("GNU.sparse.major").is_some() {
            if (pax.number("GNU.sparse.major")?, pax.number("GNU.sparse.minor")?)
                != (Some(1), Some(0))
            {
                return Err(TarError::Refused("an unknown form of sparse file".into()));
            }
            return Ok((size.ok_or(odd)?, Some(self.leading_map()?)));
        }
        let numbers: Vec<u64> = if let Some(map) = pax.get("GNU.sparse.map") {
            map.split(|byte| *byte == b',').map(decimal).collect::<Option<_>>().ok_or(odd)?
        } else {
            let is_part = |key: &[u8]| matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes");
            let parts = pax.iter().filter(|(key, _)| is_part(key)).map(|(_, value)| decimal(value));
            parts.collect::<Option<_>>().ok_or(odd)?
        };
        let odd = TarError::Malformed("a sparse map");
        match size {
            None if numbers.is_empty() => Ok((stored, None)),
            None => Err(odd),
            Some(_) if numbers.len() % 2 == 1 => Err(odd),
            Some(size) => {
                Ok((size, Some(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())))
            }
        }
    }

    /// Version 1.0: the map consists of decimal lines before the data, padded to whole blocks.
    fn leading_map(&mut self) -> Result<Vec<(u64, u64)>, TarError> {
        let mut used = 0;
        let count = self.map_line(&mut used)?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > SPARSE_REGIONS_MAX {
            return Err(TarError::Refused("a sparse file with too many regions".into()));
        }
        let mut regions = Vec::new();
        for _ in 0..count {
            regions.push((self.map_line(&mut used)?, self.map_line(&mut used)?));
        }
        let fill = padding(used);
        if fill > self.data_left {
            return Err(TarError::Malformed("a sparse map"));
        }
        self.skip(fill)?;
        self.data_left -= fill;
        Ok(regions)
    }

    fn map_line(&mut self, used: &mut u64) -> Result<u64, TarError> {
        let mut line = Vec::new();
        loop {
            let byte = *self.data()?.first().ok_or(TarError::Malformed("a sparse map"))?;
            self.consume(1);
            *used += 1;
            match byte {
                b'\n' => return decimal(&line).ok_or(TarError::Malformed("a sparse map")),
                _ if line.len() < 20 => line.push(byte),
                _ => return Err(TarError::Malformed("a sparse map")),
            }
        }
    }

    /// The data of an extended header.
    fn text(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let size = header.number(124..136)?;
        if size > EXTENDED_BYTES_MAX {
            return Err(TarError::Refused(format!("an extended header of {size} bytes")));
        }
        let mut text = vec![0; usize::try_from(size).unwrap_or_default()];
        io::Read::read_exact(&mut self.reader, &mut text)?;
        self.skip(padding(size))?;
        Ok(text)
    }

    /// The next header. `None` at the end, which only zeros may follow.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut block = [0; BLOCK];
        if self.reader.fill_buf()?.is_empty() {
            return Ok(None);
        }
        io::Read::read_exact(&mut self.reader, &mut block)?;
        if block == [0; BLOCK] {
            self.rest_is_zero()?;
            return Ok(None);
        }
        let header = Header(block);
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        let own: u64 = block[148..156].iter().map(|byte| u64::from(*byte)).sum();
        if header.number(148..156)? != sum - own + 8 * u64::from(b' ') {
            return Err(TarError::Malformed("a header (its checksum is wrong)"));
        }
        Ok(Some(header))
    }

    fn rest_is_zero(&mut self) -> Result<(), TarError> {
        loop {
            let bytes = self.reader.fill_buf()?;
            let length = bytes.len();
            if length == 0 {
                return Ok(());
            }
            if bytes.iter().any(|byte| *byte != 0) {
                return Err(TarError::Refused("more after the end of the archive".into()));
            }
            self.reader.consume(length);
        }
    }

    fn skip(&mut self, mut bytes: u64) -> Result<(), TarError> {
        while bytes > 0 {
            let length = self.reader.fill_buf()?.len();
            if length == 0 {
                return Err(TarError::Read(io::ErrorKind::UnexpectedEof.into()));
            }
            let step = length.min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.reader.consume(step);
            bytes -= step as u64;
        }
        Ok(())
    }
}

type Sparse = (u64, Option<Vec<(u64, u64)>>);

/// Headers that describe the next member.
#[derive(Default)]
struct Extended {
    pax: Option<Pax>,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Extended {
    fn is_empty(&self) -> bool {
        self.pax.is_none() && self.long_path.is_none() && self.long_link.is_none()
    }

    fn set_pax(&mut self, text: Vec<u8>) -> Result<(), TarError> {
        if self.pax.is_some() {
            return Err(TarError::Refused("two extended headers for one member".into()));
        }
        self.pax = Some(Pax::parse(&text)?);
        Ok(())
    }
}

struct Header([u8; BLOCK]);

impl Header {
    fn type_flag(&self) -> u8 {
        self.0[156]
    }

    fn kind(&self) -> Result<Kind, TarError> {
        Ok(match self.type_flag() {
            // Before POSIX, a directory was a file with a name that ends in a slash.
            0 if self.path().ends_with(b"/") => Kind::Directory,
            b'0' | b'7' | b'S' | 0 => Kind::File,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' | DUMP_DIRECTORY => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(TarError::Refused(format!(
                    "a member of the unknown type {:?}",
                    char::from(other)
                )));
            }
        })
    }

    fn path(&self) -> Vec<u8> {
        let name = until_zero(&self.0[..100]);
        // GNU archives store other data where POSIX has the prefix.
        let is_posix = &self.0[257..263] == b"ustar\0";
        let prefix = if is_posix { until_zero(&self.0[345..500]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    fn number(&self, field: std::ops::Range<usize>) -> Result<u64, TarError> {
        number(&self.0[field])
    }

    /// A time, which may be before 1970 in GNU's base-256 form.
    fn signed(&self, field: std::ops::Range<usize>) -> Result<i64, TarError> {
        let bytes = &self.0[field];
        if bytes[0] == 0xff {
            let low = bytes[bytes.len() - 8..].try_into().expect("eight bytes are eight bytes");
            return Ok(i64::from_be_bytes(low));
        }
        i64::try_from(number(bytes)?).map_err(|_| TarError::Malformed("a time"))
    }
}

/// Parses octal digits surrounded by spaces and zero bytes, or GNU's base 256 with the first bit set.
fn number(field: &[u8]) -> Result<u64, TarError> {
    if field[0] == 0x80 {
        let (high, low) = field[1..].split_at(field.len().saturating_sub(9));
        let low: u64 = low.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        return match high.iter().all(|byte| *byte == 0) && low <= i64::MAX as u64 {
            true => Ok(low),
            false => Err(TarError::Malformed("a number")),
        };
    }
    let is_space = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !is_space(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(is_space).unwrap_or(digits.len());
    let is_octal = digits[..end].iter().all(|byte| (b'0'..=b'7').contains(byte));
    if !is_octal || !digits[end..].iter().all(is_space) {
        return Err(TarError::Malformed("a number"));
    }
    Ok(digits[..end].iter().fold(0, |sum, byte| sum << 3 | u64::from(byte - b'0')))
}

/// Checks that regions are in ascending order, lie within the file and use exactly the stored data.
fn check_regions(regions: &[(u64, u64)], size: u64, stored: u64) -> Result<(), TarError> {
    let mut end = 0u64;
    let mut data = 0u64;
    for (offset, length) in regions {
        if *offset < end {
            return Err(TarError::Malformed("a sparse map"));
        }
        end = offset.checked_add(*length).ok_or(TarError::Malformed("a sparse map"))?;
        data += length;
    }
    if end > size || data != stored {
        return Err(TarError::Malformed("a sparse map"));
    }
    Ok(())
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}
