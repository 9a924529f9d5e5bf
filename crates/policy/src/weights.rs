//! The tensors that one forward pass reads.

use std::collections::HashMap;

use burn::tensor::{Gradients, Tensor};
use togi_kernels::{PackedLinear, Precision};

use crate::{params::Params, recompute::Passes};

/// A view of [`Params`] for a forward pass: on autodiff where gradients are wanted.
///
/// The parameters themselves stay off autodiff, so that an optimiser can update them in place
/// once the views are dropped.
#[derive(Clone, Debug)]
pub struct Weights {
    tensors: HashMap<String, (Vec<usize>, Tensor<1>)>,
    trainable: Vec<String>,
    dropout: Option<DropoutKey>,
    /// Matrices of one input laid out for sampling, under the first one's name.
    packed: HashMap<String, PackedLinear>,
    /// Where layers run again in the backward pass: what the forward passes left for it.
    passes: Option<Passes>,
}

/// Which random numbers a forward pass drops activations by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutKey {
    /// Seed of the run.
    pub seed: u64,
    /// Distinguishes forward passes: the same pass drops the same elements.
    pub pass: u64,
}

impl Weights {
    /// Leaves on autodiff for the trainable parameters, constants for the frozen ones.
    pub fn tracked(params: &Params) -> Self {
        let mut trainable = Vec::new();
        let tensors = params
            .iter()
            .map(|(name, param)| {
                let mut tensor = param.tensor.clone();
                if param.trainable {
                    trainable.push(name.to_owned());
                    tensor = Tensor::from_inner(tensor).require_grad();
                }
                (name.to_owned(), (param.shape.clone(), tensor))
            })
            .collect();
        Self {
            tensors,
            trainable,
            dropout: None,
            packed: HashMap::new(),
            passes: None,
        }
    }

    /// No autodiff at all.
    pub fn frozen(params: &Params) -> Self {
        let tensors = params
            .iter()
            .map(|(name, param)| (name.to_owned(), (param.shape.clone(), param.tensor.clone())))
            .collect();
        Self {
            tensors,
            trainable: Vec::new(),
            dropout: None,
            packed: HashMap::new(),
            passes: None,
        }
    }

    /// Lays the named matrices, of one input, out for sampling, rounded to a
    /// precision. They stay as they are where that has no form.
    pub(crate) fn pack(&mut self, names: &[String], precision: Precision) {
        let matrices: Option<Vec<Tensor<2>>> = names.iter().map(|name| self.matrix(name)).collect();
        if let Some(packed) = matrices.and_then(|all| PackedLinear::new(&all, precision)) {
            self.packed.insert(names[0].clone(), packed);
            for name in names {
                self.tensors.remove(name);
            }
        }
    }

    /// What [`Weights::pack`] made of the matrices of which this is the first.
    pub(crate) fn packed(&self, name: &str) -> Option<&PackedLinear> {
        self.packed.get(name)
    }

    /// The same weights with dropout in the adapters, for training passes.
    #[must_use]
    pub fn with_dropout(mut self, key: DropoutKey) -> Self {
        self.dropout = Some(key);
        self
    }

    /// The same weights, whose forward passes keep only what goes into each layer (`recompute`): the
    /// layers run again in [`crate::Decoder::gradients`].
    #[must_use]
    pub fn with_checkpointing(mut self, recompute: bool) -> Self {
        self.passes = (recompute && !self.trainable.is_empty()).then(Passes::default);
        self
    }

    /// What forward passes leave for the backward pass, where layers run again in it.
    pub(crate) fn passes(&self) -> Option<&Passes> {
        self.passes.as_ref()
    }

    /// The same weights off autodiff, with the same dropout.
    pub(crate) fn plain(&self) -> Self {
        let off = |(name, (shape, tensor)): (&String, &(Vec<usize>, Tensor<1>))| {
            let tensor = match self.trainable.contains(name) {
                true => tensor.clone().inner(),
                false => tensor.clone(),
            };
            (name.clone(), (shape.clone(), tensor))
        };
        Self {
            tensors: self.tensors.iter().map(off).collect(),
            trainable: Vec::new(),
            dropout: self.dropout,
            packed: HashMap::new(),
            passes: None,
        }
    }

    /// Some of the weights for a graph of their own, with the same dropout.
    pub(crate) fn leaves(&self, wanted: impl Fn(&str) -> bool) -> Self {
        let all = self.tensors.iter().filter(|(name, _)| wanted(name));
        let fresh = all.map(|(name, (shape, tensor))| {
            let tensor = match self.trainable.contains(name) {
                true => Tensor::from_inner(tensor.clone().inner()).require_grad(),
                false => tensor.clone(),
            };
            (name.clone(), (shape.clone(), tensor))
        });
        let trainable = self.trainable.iter().filter(|name| wanted(name));
        Self {
            tensors: fresh.collect(),
            trainable: trainable.cloned().collect(),
            dropout: self.dropout,
            packed: HashMap::new(),
            passes: None,
        }
    }

    /// True if one of these parameters is trained.
    pub(crate) fn trains(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.trainable.iter().any(|name| wanted(name))
    }

    /// Zeros in the shape of a parameter, off autodiff.
    pub(crate) fn zeros_like(&self, name: &str) -> Tensor<1> {
        self.tensors[name].1.clone().inner().zeros_like()
    }

    pub(crate) fn dropout(&self) -> Option<DropoutKey> {
        self.dropout
    }

    /// True if there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor as a vector, if it is there.
    pub(crate) fn vector(&self, name: &str) -> Option<Tensor<1>> {
        self.tensors.get(name).map(|(_, tensor)| tensor.clone())
    }

    /// A tensor as a matrix, if it is there and has two dimensions.
    pub(crate) fn matrix(&self, name: &str) -> Option<Tensor<2>> {
        let (shape, tensor) = self.tensors.get(name)?;
        let [rows, columns] = shape[..] else {
            return None;
        };
        Some(tensor.clone().reshape([rows, columns]))
    }

    /// The gradients of the trainable parameters in a backward pass, in their order; none for those
    /// that took no part in it.
    pub(crate) fn gradients(&self, grads: &mut Gradients) -> Vec<(String, Option<Tensor<1>>)> {
        let of = |name: &String| (name.clone(), self.tensors[name].1.grad_remove(grads));
        self.trainable.iter().map(of).collect()
    }
}
