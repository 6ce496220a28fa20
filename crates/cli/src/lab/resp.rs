//! As much of Redis's protocol as the client needs (RESP2, Redis documentation: "Redis
//! serialization protocol specification").

/// Longest reply that is read: the client asks for numbers only.
pub(crate) const MAX_REPLY_BYTES: usize = 4096;

/// A reply of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// `:12`
    Integer(i64),
    /// `+OK`
    Simple(String),
    /// `$2` and two bytes, or none at all
    Bulk(Option<String>),
    /// `-ERR …`
    Error(String),
}

/// A command as an array of bulk strings.
pub(crate) fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// Cuts the first reply out of `bytes`: the reply and its length, or `None` if it isn't whole
/// yet.
///
/// # Errors
/// What was found instead of a reply.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>, String> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        if bytes.len() > MAX_REPLY_BYTES {
            return Err(format!("a reply longer than {MAX_REPLY_BYTES} bytes"));
        }
        return Ok(None);
    };
    let line = &bytes[..end];
    let unexpected = || format!("{:?}", String::from_utf8_lossy(&line[..line.len().min(80)]));
    let (&kind, rest) = line.split_first().ok_or_else(unexpected)?;
    let text = std::str::from_utf8(rest).map_err(|_| unexpected())?;
    let number = || text.parse::<i64>().map_err(|_| unexpected());
    let reply = match kind {
        b':' => Reply::Integer(number()?),
        b'+' => Reply::Simple(text.to_owned()),
        b'-' => Reply::Error(text.to_owned()),
        b'$' => return bulk(bytes, end + 2, number()?).map_err(|()| unexpected()),
        _ => return Err(unexpected()),
    };
    Ok(Some((reply, end + 2)))
}

fn bulk(bytes: &[u8], start: usize, length: i64) -> Result<Option<(Reply, usize)>, ()> {
    if length == -1 {
        return Ok(Some((Reply::Bulk(None), start)));
    }
    let length = usize::try_from(length).map_err(|_| ())?;
    if length > MAX_REPLY_BYTES {
        return Err(());
    }
    let end = start + length;
    let Some(tail) = bytes.get(end..end + 2) else {
        return Ok(None);
    };
    if tail != b"\r\n" {
        return Err(());
    }
    let text = String::from_utf8(bytes[start..end].to_vec()).map_err(|_| ())?;
    Ok(Some((Reply::Bulk(Some(text)), end + 2)))
}

#[cfg(test)]
mod tests;
