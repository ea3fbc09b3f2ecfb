//! Shuffle sharding: the few queues out of many that a flow may use, by its hash alone.

/// Deals `hand` different cards out of `deck`, each hand as likely as any other. 64 bits of hash are enough for the
/// sizes that the API allows.
pub fn deal(mut hash: u64, deck: usize, hand: usize) -> Vec<usize> {
    let mut cards: Vec<usize> = Vec::with_capacity(hand.min(deck));
    let mut rests = Vec::with_capacity(hand.min(deck));
    for at in 0..hand.min(deck) {
        let left = (deck - at) as u64;
        rests.push((hash % left) as usize);
        hash /= left;
    }
    for (at, rest) in rests.iter().enumerate() {
        let mut card = *rest;
        // Counted among the cards that are left: each card dealt before that lies below moves it up.
        for earlier in (0..at).rev() {
            if card >= rests[earlier] {
                card += 1;
            }
        }
        cards.push(card);
    }
    cards
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn hands_hold_different_cards_and_every_card_comes() {
        let mut seen = BTreeSet::new();
        for hash in 0..20_000u64 {
            let hand = deal(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15), 64, 6);
            let set: BTreeSet<usize> = hand.iter().copied().collect();
            assert_eq!(set.len(), 6, "{hand:?}");
            assert!(hand.iter().all(|card| *card < 64));
            seen.extend(set);
        }
        assert_eq!(seen.len(), 64);
        assert_eq!(deal(0, 128, 4), [0, 1, 2, 3]);
        assert_eq!(deal(5, 1, 1), [0]);
    }
}
