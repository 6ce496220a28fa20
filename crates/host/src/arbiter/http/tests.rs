use super::*;

#[test]
fn an_answer_is_whole_or_none() {
    let whole = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let good = Answer {
        status: 200,
        body: b"{}".to_vec(),
    };
    assert_eq!(parse(whole), Some(good));
    for end in 0..whole.len() {
        assert_eq!(parse(&whole[..end]), None, "{end}");
    }
    assert_eq!(parse(&[&whole[..], b"x"].concat()), None);
    let unavailable = parse(b"HTTP/1.1 503 Service Unavailable\r\n\r\nno leader");
    assert_eq!(unavailable.map(|answer| answer.status), Some(503));
    for bad in [
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    ] {
        assert_eq!(parse(bad.as_bytes()), None, "{bad}");
    }
}
