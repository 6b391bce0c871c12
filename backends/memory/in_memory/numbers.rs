//! Numbers for pages and for entries, given out from zero and used again.

/// No number.
pub(super) const NONE: u32 = u32::MAX;

/// The numbers below a maximum that are free.
#[derive(Default)]
pub(super) struct FreeNumbers(Vec<u32>);

impl FreeNumbers {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        self.0.pop()
    }

    pub(super) fn put(&mut self, number: u32) {
        self.0.push(number);
    }

    /// Adds numbers, of which the lowest is given out first.
    pub(super) fn extend(&mut self, numbers: std::ops::Range<u32>) {
        self.0.extend(numbers.rev());
    }

    /// Lowers the maximum. Returns the numbers in use that are too high, each with a free one that is now taken instead.
    pub(super) fn lower_max(&mut self, from: usize, to: usize) -> Vec<(u32, u32)> {
        let lowest = to as u32;
        let mut is_used = vec![true; from - to];
        self.0.retain(|&number| {
            let stays = number < lowest;
            if !stays {
                is_used[(number - lowest) as usize] = false;
            }
            stays
        });
        let too_high = (lowest..).zip(is_used).filter(|(_, is_used)| *is_used).map(|(number, _)| number);
        let moves = too_high.map(|number| (number, self.0.pop().expect("more are free than move"))).collect();
        self.0.shrink_to(2 * self.0.len());
        moves
    }
}

/// Makes room for another element. In steps of an eighth: doubling could keep as much unused as used.
pub(super) fn grow<T>(vec: &mut Vec<T>) {
    if vec.len() == vec.capacity() {
        vec.reserve_exact(vec.len() / 8 + 64);
    }
}
