from trackrecord.upstream.index.query import Index

__all__ = ["Index"]
