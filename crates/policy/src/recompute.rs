//! Gradients of a loss, and per-block activation checkpointing: a decoder layer's activations are not
//! kept for the backward pass. Only what goes into the layer is; the layer runs again when its turn in
//! the backward pass comes.
//!
//! The layers run off autodiff, and the last one's output begins the graph that the loss is taken on.
//! From the gradient at that point [`Decoder::gradients`] goes back layer by layer, each on a small
//! graph of its own. No loss knows of it, and no backend needs an operation for it.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Gradients, Tensor};

use crate::{
    decoder::{Attend, Decoder, EMBEDDING},
    error::PolicyError,
    packed::Packed,
    weights::{GradientSums, Weights},
};

/// Forward passes whose layers have to run again, of one [`Weights`].
pub(crate) type Passes = Arc<Mutex<Vec<Pass>>>;

/// What a forward pass keeps instead of its activations.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    batch: Packed,
    /// What went into each layer, off autodiff.
    inputs: Vec<Tensor<2>>,
    /// What came out of the last one: a leaf of the graph that the loss is on.
    out: Tensor<2>,
}

impl Decoder {
    /// Gradients of a loss on these weights with respect to the trainable parameters, in their order;
    /// zeros for those that took no part in it.
    ///
    /// # Errors
    /// As [`Decoder::hidden`], where layers run again.
    pub fn gradients(
        &self,
        weights: &Weights,
        loss: Tensor<1>,
    ) -> Result<Vec<(String, Tensor<1>)>, PolicyError> {
        let mut sums = GradientSums::default();
        self.add_gradients(weights, loss, &mut sums)?;
        Ok(sums.into_gradients())
    }

    /// Adds [`Decoder::gradients`] to those of other losses of the same parameters. On the CPU, products
    /// add to the sums themselves: no second set of gradients is held.
    ///
    /// # Errors
    /// As [`Decoder::gradients`].
    pub fn add_gradients(
        &self,
        weights: &Weights,
        loss: Tensor<1>,
        sums: &mut GradientSums,
    ) -> Result<(), PolicyError> {
        if sums.is_empty() {
            *sums = weights.no_gradients();
        }
        let mut grads = weights.backward(loss, sums);
        for pass in take(weights) {
            self.go_back(weights, pass, &mut grads, sums)?;
        }
        weights.complete(sums);
        Ok(())
    }

    /// The layers off autodiff; what comes out is a leaf.
    pub(crate) fn run_layers_kept(
        &self,
        weights: &Weights,
        passes: &Passes,
        batch: &Packed,
    ) -> Result<Tensor<2>, PolicyError> {
        let plain = weights.plain();
        let mut x = self.embed(&plain, &batch.ids)?;
        let mut inputs = Vec::with_capacity(self.config.num_hidden_layers);
        for layer in 0..self.config.num_hidden_layers {
            inputs.push(x.clone());
            let mut attend = Attend::Packed(batch);
            x = self.layer(&plain, layer, x, &batch.positions, &mut attend)?;
        }
        let out = Tensor::from_inner(x).require_grad();
        let pass = Pass {
            batch: batch.clone(),
            inputs,
            out: out.clone(),
        };
        let mut all = passes.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(pass);
        Ok(out)
    }

    /// From the gradient at the last layer's output through the layers to the embedding, as far as
    /// there is something to train.
    fn go_back(
        &self,
        weights: &Weights,
        pass: Pass,
        grads: &mut Gradients,
        sums: &mut GradientSums,
    ) -> Result<(), PolicyError> {
        let Pass {
            batch,
            mut inputs,
            out,
        } = pass;
        let Some(mut upstream) = out.grad_remove(grads) else {
            return Ok(());
        };
        drop(out);
        let trains_embedding = weights.trains(|name| name == EMBEDDING);
        // The first layer that has something to train: before it no gradient is needed.
        let first = (0..inputs.len()).find(|layer| weights.trains(|name| is_of(name, *layer)));
        while let Some(input) = inputs.pop() {
            let layer = inputs.len();
            let before = trains_embedding || first.is_some_and(|first| first < layer);
            if !before && first != Some(layer) {
                return Ok(());
            }
            let own = weights.leaves(|name| is_of(name, layer));
            let mut x = Tensor::from_inner(input);
            if before {
                x = x.require_grad();
            }
            let mut attend = Attend::Packed(&batch);
            let out = self.layer(&own, layer, x.clone(), &batch.positions, &mut attend)?;
            // The gradient of this sum is `upstream` at `out`.
            let mut grads = own.backward((out * Tensor::from_inner(upstream)).sum(), sums);
            match x.grad_remove(&mut grads) {
                Some(grad) if before => upstream = grad,
                _ => return Ok(()),
            }
        }
        let own = weights.leaves(|name| name == EMBEDDING);
        let out = self.embed(&own, &batch.ids)?;
        own.backward((out * Tensor::from_inner(upstream)).sum(), sums);
        Ok(())
    }
}

fn take(weights: &Weights) -> Vec<Pass> {
    match weights.passes() {
        Some(passes) => {
            let mut all = passes.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *all)
        }
        None => Vec::new(),
    }
}

/// True if a parameter is one of this layer's.
fn is_of(name: &str, layer: usize) -> bool {
    let rest = name.strip_prefix("model.layers.");
    let number = rest.and_then(|rest| rest.split('.').next());
    number.is_some_and(|number| number.parse() == Ok(layer))
}
