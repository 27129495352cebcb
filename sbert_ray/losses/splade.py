"""Losses of sparse embeddings that pay for every dimension in use.

Shapes: B rows of a column, N rows of several columns, V dimensions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sbert_ray.losses.columns import MiniBatches
from sbert_ray.losses.loss import Loss
from sbert_ray.losses.values import Value, scaled, summed, total
from sbert_ray.losses.wrapper import WrapperLoss, check_embeds_with_model


class FlopsLoss(Loss):
    """The expected number of products that comparing two embeddings takes, if these were as dense as the batch's.

        loss = sum_j ( 1/N sum_i e_ij )^2

    It is a regularizer, to be part of `SpladeLoss`.

    Columns: any number of texts. Labels: none.

    Args:
        model: Embeds the columns.
        threshold: Rows with no more dimensions in use than this count as zeros; None takes all as they are.

    References:
        Paria et al. 2020, Minimizing FLOPs to Learn Efficient Sparse Representations, arXiv:2004.05665.
        Shen et al. 2025, inference-free sparse retrievers, arXiv:2504.14839 (threshold).
    """

    num_columns = (1, None)
    needs_wrapper = "SpladeLoss"

    def __init__(self, model: nn.Module | None, threshold: float | None = None) -> None:
        super().__init__(model)
        self.threshold = threshold

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Tensor:  # noqa: ARG002
        """Return the loss of all columns' rows together."""
        rows = torch.cat(list(embeddings))  # (N, V)
        if self.threshold is not None:
            rows = rows * ((rows != 0).sum(1, keepdim=True) > self.threshold)
        return rows.mean(0).square().sum()


class SpladeLoss(WrapperLoss):
    """Any loss of sparse embeddings, and regularizers of queries and documents.

        loss = base + w_d R(documents) + w_q R(queries)

    Queries are the first column, documents all others. The components are returned by name: ``base_loss``,
    ``document_regularizer_loss`` and ``query_regularizer_loss``.

    Columns: those of the wrapped loss. Labels: those of the wrapped loss.

    Args:
        model: Embeds the columns.
        loss: Any loss over embeddings, such as `SparseMultipleNegativesRankingLoss`.
        document_regularizer_weight: w_d.
        query_regularizer_weight: w_q; None leaves queries alone, for models that do not learn their weights.
        document_regularizer: R of documents; a `FlopsLoss` if None.
        query_regularizer: R of queries; a `FlopsLoss` if None.
        document_regularizer_threshold: Of the documents' `FlopsLoss`.
        query_regularizer_threshold: Of the queries' `FlopsLoss`.
        use_document_regularizer_only: Whether all columns count as documents.

    References:
        Formal et al. 2022, From Distillation to Hard Negative Sampling, arXiv:2205.04733.
    """

    by_rows = False

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        model: nn.Module | None,
        loss: Loss,
        document_regularizer_weight: float,
        query_regularizer_weight: float | None = None,
        document_regularizer: Loss | None = None,
        query_regularizer: Loss | None = None,
        document_regularizer_threshold: int | None = None,
        query_regularizer_threshold: int | None = None,
        use_document_regularizer_only: bool = False,
    ) -> None:
        super().__init__(model, loss)
        _check_threshold("document", document_regularizer, document_regularizer_threshold)
        _check_threshold("query", query_regularizer, query_regularizer_threshold)
        self.document_regularizer_weight = document_regularizer_weight
        self.query_regularizer_weight = query_regularizer_weight
        self.document_regularizer = document_regularizer or FlopsLoss(model, document_regularizer_threshold)
        self.query_regularizer = query_regularizer or FlopsLoss(model, query_regularizer_threshold)
        self.document_regularizer_threshold = document_regularizer_threshold
        self.query_regularizer_threshold = query_regularizer_threshold
        self.use_document_regularizer_only = use_document_regularizer_only

    def compute(self, embeddings: Sequence[Tensor], labels: Tensor | None) -> Value:
        """Return the components by name."""
        return self._components(embeddings, self.loss.compute(embeddings, labels), 1.0)

    def compute_rows(self, embeddings: Sequence[Tensor], labels: Tensor | None, rows: slice) -> Value:
        """Return the share of some anchors in each component."""
        share = (rows.stop - rows.start) / len(embeddings[0])
        return self._components(embeddings, self.loss.compute_rows(embeddings, labels, rows), share)

    def _components(self, embeddings: Sequence[Tensor], base: Value, share: float) -> Value:
        found: list[Value] = [base if isinstance(base, dict) else {"base_loss": base}]
        documents = embeddings if self.use_document_regularizer_only else embeddings[1:]
        if not documents:
            raise ValueError(
                "SpladeLoss regularizes the columns after the first as documents, and there are none; say"
                " use_document_regularizer_only=True to take all columns as documents"
            )
        weight = self.document_regularizer_weight * share
        found.append({"document_regularizer_loss": self._regularized(self.document_regularizer, documents, weight)})
        if self.query_regularizer_weight is not None and not self.use_document_regularizer_only:
            weight = self.query_regularizer_weight * share
            found.append({"query_regularizer_loss": self._regularized(self.query_regularizer, embeddings[:1], weight)})
        return summed(found)  # a SpladeLoss within this one has the same names

    @staticmethod
    def _regularized(regularizer: Loss, columns: Sequence[Tensor], weight: float) -> Tensor:
        return total(scaled(regularizer.compute([torch.cat(list(columns))], None), weight))


class CachedSpladeLoss(SpladeLoss):
    """`SpladeLoss` of batches of any size, by gradient caching: its activations are those of one mini-batch.

    Columns: those of the wrapped loss. Labels: those of the wrapped loss.

    Args:
        model: Embeds the columns.
        loss: Any loss over embeddings.
        document_regularizer_weight: As in `SpladeLoss`, like all that are not told below.
        query_regularizer_weight: The weight of the queries' regularizer.
        document_regularizer: That of documents.
        query_regularizer: That of queries.
        document_regularizer_threshold: Of the documents' `FlopsLoss`.
        query_regularizer_threshold: Of the queries' `FlopsLoss`.
        use_document_regularizer_only: Whether all columns count as documents.
        mini_batch_size: Rows that are embedded at a time.
        mini_batch_num_tokens: Tokens that are embedded at a time, instead of rows.
        show_progress_bar: Whether to show the mini-batches.

    References:
        Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, arXiv:2101.06983.
    """

    mini_batches: MiniBatches | None = None

    def __init__(  # noqa: PLR0913, PLR0917 (the public signature)
        self,
        model: nn.Module | None,
        loss: Loss,
        document_regularizer_weight: float,
        query_regularizer_weight: float | None = None,
        document_regularizer: Loss | None = None,
        query_regularizer: Loss | None = None,
        document_regularizer_threshold: int | None = None,
        query_regularizer_threshold: int | None = None,
        use_document_regularizer_only: bool = False,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(
            model,
            loss,
            document_regularizer_weight=document_regularizer_weight,
            query_regularizer_weight=query_regularizer_weight,
            document_regularizer=document_regularizer,
            query_regularizer=query_regularizer,
            document_regularizer_threshold=document_regularizer_threshold,
            query_regularizer_threshold=query_regularizer_threshold,
            use_document_regularizer_only=use_document_regularizer_only,
        )
        check_embeds_with_model(self)
        self.mini_batches = MiniBatches(mini_batch_size, mini_batch_num_tokens, show_progress_bar)


def _check_threshold(name: str, regularizer: Loss | None, threshold: int | None) -> None:
    if regularizer is not None and threshold is not None:
        kind = type(regularizer).__name__
        raise ValueError(f"{name}_regularizer_threshold is that of a FlopsLoss; give it to your {kind} instead")
