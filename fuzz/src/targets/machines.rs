//! The machines of the handover, by any events in any order, and by deaths at any moment: `tests/model` explores what can happen, this
//! throws in what cannot, too. The first byte chooses the end, each later pair of bytes is an event and its particulars.

mod destination;
mod source;

pub(crate) fn run(bytes: &[u8]) {
    let Some((end, events)) = bytes.split_first() else { return };
    let events = events.chunks_exact(2).map(|pair| (pair[0], pair[1]));
    match end % 2 {
        0 => source::run(events),
        _ => destination::run(events),
    }
}

fn why() -> String {
    String::new()
}

fn bit(byte: u8, nth: u8) -> bool {
    byte >> nth & 1 == 1
}

/// One of them.
fn pick<T: Copy>(among: &[T], byte: u8) -> T {
    among[usize::from(byte) % among.len()]
}
