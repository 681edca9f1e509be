//! The ring by itself, on one thread. What several do at once is for loom, in `tests/wal_reservation.rs`.

use super::buffer::Buffer;

#[test]
fn what_is_put_in_comes_out_once_with_zeros_between() {
    let buffer = Buffer::new(1000, 64);
    assert!(buffer.has_room(1064) && !buffer.has_room(1072));
    for round in 0..20 {
        let at = 1000 + round * 40;
        // Round the end of the ring in some rounds.
        buffer.put(at, b"eleven byte");
        buffer.put(at + 24, &[7; 16]);
        let mut found = [1; 40];
        buffer.take(at, &mut found);
        assert_eq!(&found[..11], b"eleven byte");
        assert_eq!((&found[11..24], &found[24..]), (&[0; 13][..], &[7; 16][..]));
        assert!(!buffer.has_room(at + 40 + 64));
        buffer.set_taken(at + 40);
        assert!(buffer.has_room(at + 40 + 64));
        buffer.take(at, &mut found);
        assert_eq!(found, [0; 40]);
    }
}
