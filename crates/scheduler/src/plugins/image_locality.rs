//! ImageLocality: a node that holds the pod's images is liked better, the more so the larger they are, and the less
//! so the fewer nodes hold them, lest all pods of an image end up on the one node that has it.

use super::{SCORE_MAX, Score, as_is};

pub const NAME: &str = "ImageLocality";

const MIB: i64 = 1024 * 1024;
/// Images together smaller than this do not count, and none counts for more than the other, per container.
const BYTES_MIN: i64 = 23 * MIB;
const CONTAINER_BYTES_MAX: i64 = 1000 * MIB;

/// The share of the nodes that hold each of the pod's images, for images that any holds.
pub(crate) type Spread = Vec<(String, f64)>;

pub const SCORE: Score = Score {
    name: NAME,
    weight: 1,
    prepare: |cycle, _| {
        let (snapshot, all) = (cycle.snapshot, cycle.snapshot.len() as f64);
        let held = cycle.pod.images.iter().filter_map(|image| {
            let nodes = snapshot.nodes_with_image(image);
            (nodes > 0).then(|| (image.clone(), nodes as f64 / all))
        });
        cycle.image_score = held.collect();
        !cycle.image_score.is_empty()
    },
    score: |cycle, node| {
        let held =
            cycle.image_score.iter().filter_map(|(image, share)| Some((node.images.get(image)?, share)));
        let sum: i64 = held.map(|(bytes, share)| (*bytes as f64 * share) as i64).sum();
        let most = CONTAINER_BYTES_MAX * cycle.pod.containers() as i64;
        SCORE_MAX * (sum.clamp(BYTES_MIN, most.max(BYTES_MIN)) - BYTES_MIN) / (most - BYTES_MIN).max(1)
    },
    normalize: as_is,
};
